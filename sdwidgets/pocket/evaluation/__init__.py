"""How well does Pocket draw what the prompt says? Prompts, checks and tiers; the judge reads the pictures.

`prompt_sets` holds every prompt and what a right picture shows, `tiers` what is to be reached, `sampling` goes from prompts to readings,
`sections` measures, `runner` runs it all, and `report` is about the file.
"""
