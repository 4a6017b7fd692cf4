// Votes by keyboard: the keys press the buttons.
if (!window.kaskadeCompare) {
  window.kaskadeCompare = true;
  const keys = { ArrowLeft: "c-left", ArrowDown: "c-tie", ArrowRight: "c-right", Backspace: "c-back" };
  document.addEventListener("keydown", (event) => {
    const id = keys[event.key];
    const typing = event.target.closest && event.target.closest("input, textarea, select");
    if (!id || typing || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    const button = document.getElementById(id);
    if (!button || button.disabled || !button.offsetParent) return;
    event.preventDefault();
    button.click();
  });
}
