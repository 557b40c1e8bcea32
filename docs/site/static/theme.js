// Views follow the attribute `theme` of the page (followTheme in common.js); furo's button sets data-theme of the body.
const follow = () => {
  const chosen = document.body.dataset.theme;
  if (chosen === "light" || chosen === "dark") document.documentElement.setAttribute("theme", chosen);
  else document.documentElement.removeAttribute("theme"); // as the system is
};
document.addEventListener("DOMContentLoaded", () => {
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "All pages"); // two landmarks of one kind
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "This page");
  new MutationObserver(follow).observe(document.body, { attributeFilter: ["data-theme"] });
  follow();
});

// A formula that is wider than the page scrolls, and so the keyboard must reach it.
addEventListener("DOMContentLoaded", () => {
  const formulas = new ResizeObserver((all) => all.forEach(({ target }) => {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }));
  document.querySelectorAll(".math-wrapper").forEach((formula) => formulas.observe(formula));
});
