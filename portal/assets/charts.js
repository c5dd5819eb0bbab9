// Charts. A page says what to draw:
//
//   <div class="ez-chart" data-chart="usage" data-src="/api/v1/…" data-refresh-s="30" aria-label="…"></div>
//
// and a script says how: ezCharts.register("usage", function (data, theme, element) { return echartsOption; }).
// The option gets the theme's fonts, axes, tooltip and empty state where it does not set its own. Charts follow the theme
// and the size of their box; data-src may be changed with ezCharts.load(element, url). Every chart has a table beside it
// on the page, so the drawing itself is hidden from screen readers.
(function () {
  "use strict";
  var kinds = {};
  var live = new Map();

  function theme() {
    var style = getComputedStyle(document.documentElement);
    function read(name) {
      return style.getPropertyValue(name).trim();
    }
    return {
      text: read("--ez-text"),
      muted: read("--ez-muted"),
      line: read("--ez-line"),
      surface: read("--ez-surface"),
      in: read("--ez-in"),
      out: read("--ez-out"),
      warn: read("--ez-warn"),
      gap: read("--ez-gap"),
      palette: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(function (n) {
        return read("--ez-c" + n);
      }),
      other: read("--ez-other"),
    };
  }

  // Three significant digits with a prefix, as the pages print them: by 1000, or by 1024 where the plan is sold so.
  function prefixed(value, unit, isBinary) {
    var prefixes = isBinary ? ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] : ["", "k", "M", "G", "T", "P", "E"];
    var base = isBinary ? 1024 : 1000;
    var size = Math.abs(value);
    var i = 0;
    while (size >= base - 0.5 && i < prefixes.length - 1) {
      size /= base;
      i += 1;
    }
    var digits = i === 0 ? 0 : size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
    return (value < 0 ? "-" : "") + size.toFixed(digits) + " " + prefixes[i] + unit;
  }

  // `units` as the API names them: decimal, binary.
  function bytes(value, units) {
    return prefixed(value, "B", units === "binary");
  }
  function bits(value) {
    return prefixed(value, "bit/s");
  }
  // Axis labels: the same without needless zeros.
  function short(unit) {
    return function (value) {
      return prefixed(value, unit).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
    };
  }

  function parts(ms, zone) {
    var found = {};
    new Intl.DateTimeFormat("en-US", {
      timeZone: zone || "UTC",
      year: "numeric",
      month: "short",
      day: "numeric",
      hour: "2-digit",
      minute: "2-digit",
      hourCycle: "h23",
    })
      .formatToParts(ms)
      .forEach(function (part) {
        found[part.type] = part.value;
      });
    return found;
  }
  // 30 Nov, 14:05 and 30 Nov 2026 14:05, as the pages print them.
  function day(ms, zone) {
    var at = parts(ms, zone);
    return at.day + " " + at.month;
  }
  function clock(ms, zone) {
    var at = parts(ms, zone);
    return at.hour + ":" + at.minute;
  }
  function time(ms, zone) {
    return day(ms, zone) + " " + parts(ms, zone).year + " " + clock(ms, zone);
  }

  // A tooltip as DOM nodes: the page's content security policy forbids styles in markup.
  function tooltip(title, rows, note) {
    var box = document.createElement("div");
    box.className = "ez-tip";
    var head = document.createElement("div");
    head.className = "ez-tip-head";
    head.textContent = title;
    box.appendChild(head);
    rows.forEach(function (row) {
      var line = document.createElement("div");
      line.className = "ez-tip-row";
      var dot = document.createElement("i");
      dot.style.background = row.color;
      var name = document.createElement("span");
      name.textContent = row.name;
      var value = document.createElement("b");
      value.textContent = row.value;
      line.append(dot, name, value);
      box.appendChild(line);
    });
    if (note) {
      var foot = document.createElement("div");
      foot.className = "ez-tip-note";
      foot.textContent = note;
      box.appendChild(foot);
    }
    return box;
  }

  function withDefaults(option, t) {
    var axis = {
      axisLine: { lineStyle: { color: t.line } },
      axisTick: { show: false },
      axisLabel: { color: t.muted, hideOverlap: true },
      splitLine: { lineStyle: { color: t.line } },
      nameTextStyle: { color: t.muted },
    };
    function fill(target, source) {
      Object.keys(source).forEach(function (key) {
        var value = source[key];
        if (target[key] === undefined) target[key] = value;
        else if (value && typeof value === "object" && !Array.isArray(value)) fill(target[key], value);
      });
      return target;
    }
    ["xAxis", "yAxis"].forEach(function (name) {
      if (!option[name]) return;
      [].concat(option[name]).forEach(function (one) {
        fill(one, JSON.parse(JSON.stringify(axis)));
      });
    });
    return fill(option, {
      animation: false,
      backgroundColor: "transparent",
      color: t.palette,
      textStyle: { fontFamily: "inherit", color: t.text },
      grid: { left: 8, right: 16, top: 40, bottom: 8, containLabel: true },
      legend: {
        top: 0,
        left: 0,
        icon: "roundRect",
        itemWidth: 10,
        itemHeight: 10,
        type: "scroll",
        textStyle: { color: t.text },
        pageTextStyle: { color: t.muted },
        pageIconColor: t.text,
        pageIconInactiveColor: t.line,
      },
      tooltip: {
        trigger: "axis",
        confine: true,
        backgroundColor: t.surface,
        borderColor: t.line,
        padding: 8,
        textStyle: { color: t.text },
        axisPointer: { lineStyle: { color: t.muted } },
      },
    });
  }

  function say(entry, text, isError) {
    entry.note.textContent = text;
    entry.note.hidden = !text;
    entry.note.classList.toggle("ez-chart-error", Boolean(isError));
  }

  function draw(entry) {
    if (!entry.data) return;
    var t = theme();
    var option = kinds[entry.kind](entry.data, t, entry.element);
    if (!option) {
      entry.chart.clear();
      say(entry, entry.element.dataset.empty || "Nothing was measured in this time.");
      return;
    }
    say(entry, "");
    entry.chart.setOption(withDefaults(option, t), { notMerge: true });
  }

  // The portal must not take what a timer loads for somebody who is there.
  function load(entry, byTimer) {
    var headers = { Accept: "application/json" };
    if (byTimer) headers["EZSCALE-Background"] = "1";
    var url = entry.element.dataset.src;
    var mine = (entry.asked = (entry.asked || 0) + 1);
    entry.element.setAttribute("aria-busy", "true");
    return fetch(url, { headers: headers, credentials: "same-origin" })
      .then(function (response) {
        return response.json().then(function (body) {
          if (!response.ok) throw new Error(body.detail || body.title || "The data could not be loaded.");
          return body;
        });
      })
      .then(function (data) {
        if (mine !== entry.asked) return; // A later question was asked meanwhile.
        entry.data = data;
        entry.element.dispatchEvent(new CustomEvent("ez:data", { detail: data, bubbles: true }));
        draw(entry);
      })
      .catch(function (error) {
        if (mine === entry.asked) say(entry, error.message, true);
      })
      .finally(function () {
        if (mine === entry.asked) entry.element.removeAttribute("aria-busy");
      });
  }

  function start(element) {
    var kind = element.dataset.chart;
    if (!kinds[kind] || live.has(element)) return;
    var canvas = document.createElement("div");
    canvas.className = "ez-chart-canvas";
    canvas.setAttribute("aria-hidden", "true");
    var note = document.createElement("div");
    note.className = "ez-chart-note";
    note.setAttribute("role", "status");
    element.replaceChildren(canvas, note);
    element.setAttribute("role", "figure");
    var entry = { element: element, kind: kind, note: note, chart: window.echarts.init(canvas) };
    live.set(element, entry);
    say(entry, "Loading…");
    new ResizeObserver(function () {
      entry.chart.resize();
    }).observe(canvas);
    load(entry);
    var every = Number(element.dataset.refreshS);
    if (every > 0) {
      setInterval(function () {
        if (!document.hidden && element.dataset.paused === undefined) load(entry, true);
      }, every * 1000);
    }
  }

  function startAll() {
    document.querySelectorAll("[data-chart]").forEach(start);
  }

  window.ezCharts = {
    register: function (kind, build) {
      kinds[kind] = build;
      if (document.readyState !== "loading") startAll();
    },
    load: function (element, url) {
      if (url) element.dataset.src = url;
      var entry = live.get(element);
      return entry ? load(entry) : Promise.resolve();
    },
    theme: theme,
    bytes: bytes,
    bits: bits,
    short: short,
    time: time,
    day: day,
    clock: clock,
    tooltip: tooltip,
  };
  document.addEventListener("ez:theme", function () {
    live.forEach(draw);
  });
  document.addEventListener("DOMContentLoaded", startAll);
})();
