"""What a chatbot might say of Stable Diffusion: written for notebook 00, with mistakes of the kind that such texts make."""

SENTENCES = (
    "Stable Diffusion turns text into pictures with a U-Net of 860 million parameters.",
    "Its largest part is the text encoder, with 1.2 billion.",
    "The prompt may be as long as you like.",
    "It does not work on pixels, but on a compressed picture of 48 times fewer numbers.",
    "Each picture takes 1,000 denoising steps.",
    "It was trained on 256 graphics cards for 150,000 hours each, at a cost of $600,000.",
    "It keeps its training pictures in compressed form, and looks up those that fit the prompt best.",
)
