// Small conveniences; every page works without them.
(function () {
  "use strict";

  // Theme: system → light → dark → system.
  var order = [null, "light", "dark"];
  var names = { light: "Light", dark: "Dark" };
  document.querySelectorAll("[data-theme-toggle]").forEach(function (button) {
    function show() {
      var name = names[window.ezTheme.chosen()] || "System";
      button.querySelector("[data-theme-label]").textContent = name + " theme";
    }
    button.hidden = false;
    button.addEventListener("click", function () {
      var now = order.indexOf(window.ezTheme.chosen());
      window.ezTheme.choose(order[(now + 1) % order.length]);
      document.querySelectorAll("[data-theme-toggle]").forEach(function (other) {
        other.dispatchEvent(new CustomEvent("ez:show"));
      });
    });
    button.addEventListener("ez:show", show);
    show();
  });

  // The current one of a row of tabs is in sight, also where the row is wider than the screen.
  document.querySelectorAll(".ez-seg [aria-current]").forEach(function (tab) {
    var row = tab.closest(".ez-seg");
    row.scrollLeft = tab.offsetLeft - row.offsetLeft - (row.clientWidth - tab.offsetWidth) / 2;
  });

  // Forms marked so submit when a choice changes.
  document.querySelectorAll("form[data-auto-submit]").forEach(function (form) {
    form.addEventListener("change", function () {
      form.requestSubmit();
    });
  });

  // Forms marked so submit when the page is shown, once: not again when somebody goes back to it.
  document.querySelectorAll("form[data-submit-once]").forEach(function (form) {
    var key = "ez:sent:" + window.location.href;
    if (window.sessionStorage.getItem(key)) return;
    window.sessionStorage.setItem(key, "1");
    form.requestSubmit();
  });

  // The key / leads to the search, unless something is being typed.
  document.addEventListener("keydown", function (event) {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    var boxes = Array.prototype.slice.call(document.querySelectorAll("[data-find]"));
    var menu = document.querySelector(".ez-menu");
    var isNarrow = menu && getComputedStyle(menu).display !== "none";
    // On a narrow screen the box lies in the menu.
    if (isNarrow) menu.open = true;
    var box = boxes.find(function (one) {
      return one.checkVisibility ? one.checkVisibility() : one.offsetParent !== null;
    });
    if (!box) return;
    event.preventDefault();
    box.focus();
    box.select();
  });

  // Escape closes the menu of a narrow screen and goes back to its button.
  document.addEventListener("keydown", function (event) {
    var menu = document.querySelector(".ez-menu[open]");
    if (event.key !== "Escape" || !menu) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });

  // Copy buttons: data-copy="#id-of-the-text".
  document.querySelectorAll("[data-copy]").forEach(function (button) {
    if (!navigator.clipboard) return;
    button.hidden = false;
    button.addEventListener("click", function () {
      var source = document.querySelector(button.dataset.copy);
      navigator.clipboard.writeText(source.textContent).then(function () {
        var label = button.textContent;
        button.textContent = "Copied";
        setTimeout(function () {
          button.textContent = label;
        }, 1500);
      });
    });
  });

  // What scrolls sideways can be scrolled by the keyboard too; what fits is no stop on the way.
  var scrolls = ".ez-scroll, .ez-seg, pre";
  function reachable(box) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
    else if (box.hasAttribute("tabindex")) box.removeAttribute("tabindex");
  }
  var watcher = new ResizeObserver(function (entries) {
    entries.forEach(function (entry) {
      reachable(entry.target);
    });
  });
  function watch() {
    document.querySelectorAll(scrolls).forEach(function (box) {
      // At once: the observer comes with the next frame, and a part that was replaced has the keyboard before.
      reachable(box);
      watcher.observe(box);
    });
  }
  watch();
  document.addEventListener("htmx:afterSwap", watch);
})();
