// The exporters page asks for its list again every few seconds. What somebody opened stays open, and the copy buttons of
// the new list work like those of the old.
(function () {
  "use strict";
  var COPIED_MS = 1500;
  var open = new Set();

  function showCopyButtons() {
    if (!navigator.clipboard) return;
    document.querySelectorAll("[data-copy-text]").forEach(function (button) {
      button.hidden = false;
    });
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-copy-text]");
    if (!button) return;
    var source = document.querySelector(button.dataset.copyText);
    navigator.clipboard.writeText(source.textContent).then(function () {
      var label = button.textContent;
      button.textContent = "Copied";
      window.setTimeout(function () {
        button.textContent = label;
      }, COPIED_MS);
    });
  });

  document.addEventListener("htmx:beforeSwap", function () {
    open = new Set();
    document.querySelectorAll("details[id][open]").forEach(function (details) {
      open.add(details.id);
    });
  });
  document.addEventListener("htmx:afterSwap", function () {
    open.forEach(function (id) {
      var details = document.getElementById(id);
      if (details) details.open = true;
    });
    showCopyButtons();
  });
  showCopyButtons();
})();
