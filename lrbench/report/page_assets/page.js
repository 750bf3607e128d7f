"use strict";
// Draws what the page's own JSON holds. Text from records only ever becomes text, never markup.
(() => {
  const ABSENT = "-";
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;
  const table = byId("rows");
  const tip = byId("tip");
  const members = data.groups.map((_, number) => data.rows.filter((row) => row.group === number));
  const lines = Array.from(table.querySelectorAll("tr[data-row]"));
  const bodies = Array.from(table.tBodies);
  const FILTERS = ["dataset", "res", "sr", "protocol", "search", "mixed"];

  for (const row of data.rows) {
    row.words = [row.method, row.name, row.training, row.backbone, row.key, ...row.notes].join(" ").toLowerCase();
  }

  // ---------------------------------------------------------------------------------------------------- elements

  function build(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  const make = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);

  const draw = (tag, attributes = {}, ...children) =>
    build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  const oneDecimal = (value) => (value === null || value === undefined ? ABSENT : value.toFixed(1));
  const number = (value) => Number(value.toPrecision(3)).toLocaleString("en", {maximumFractionDigits: 3});

  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  function measured([value, low, high]) {
    return oneDecimal(value) + (low === undefined ? "" : ` (95 % interval ${oneDecimal(low)} to ${oneDecimal(high)})`);
  }

  // ---------------------------------------------------------------------------------------------------- the address

  // "#/method/udp/<key>?dataset=synth": a view, its parts, and the filters, so that every state is a link
  function route() {
    const [path, query = ""] = location.hash.slice(1).split("?");
    let parts;
    try {
      parts = path.split("/").slice(1).map(decodeURIComponent);
    } catch {
      parts = []; // a link that is cut off
    }
    return {parts, query: new URLSearchParams(query)};
  }

  function address(parts, query) {
    const text = query.toString();
    return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
  }

  function change(name, value) {
    const {parts, query} = route();
    if (value) query.set(name, value);
    else query.delete(name);
    location.replace(address(parts, query));
  }

  // ---------------------------------------------------------------------------------------------------- tooltips

  const told = new WeakMap(); // element -> lines

  function explain(element, words) {
    told.set(element, words);
    return element;
  }

  function showTip(element) {
    const words = told.get(element);
    tip.replaceChildren(...words.map((line) => make("p", {}, line)));
    tip.hidden = false;
    tip.style.left = "0"; // near the right edge it would be measured too narrow
    element.setAttribute("aria-describedby", "tip");
    const at = element.getBoundingClientRect();
    const {width, height} = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left + at.width / 2 - width / 2), innerWidth - width - 8);
    const above = at.top - height - 8;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above > 8 ? above : Math.min(at.bottom + 8, innerHeight - height - 8)}px`;
  }

  const hideTip = () => {
    tip.hidden = true;
  };

  const explained = (event) => {
    let element = event.target;
    while (element instanceof Element && !told.has(element)) element = element.parentElement;
    return element instanceof Element ? element : null;
  };

  for (const [kind, act] of [
    ["pointerover", (event) => (explained(event) ? showTip(explained(event)) : hideTip())],
    ["focusin", (event) => (explained(event) ? showTip(explained(event)) : hideTip())],
    ["focusout", hideTip],
    ["scroll", hideTip],
    ["keydown", (event) => event.key === "Escape" && hideTip()],
  ]) {
    document.addEventListener(kind, act, {capture: kind === "scroll", passive: true});
  }

  // ---------------------------------------------------------------------------------------------------- leaderboard

  function visibleRows(query) {
    const value = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) || ""]));
    const words = value.search.toLowerCase().split(/\s+/).filter(Boolean);
    const group = data.groups.findIndex((each) => each.letter === value.protocol);
    return data.rows.map(
      (row) =>
        (!value.dataset || row.dataset === value.dataset) &&
        (!value.res || row.res === value.res) &&
        (!value.sr || row.sr === value.sr) &&
        (!value.protocol || row.group === group) &&
        words.every((word) => row.words.includes(word))
    );
  }

  // numbers by size, words by alphabet; what a row does not have comes last in both directions
  function order(column, descending) {
    const sign = descending ? -1 : 1;
    const text = new Intl.Collator("en", {numeric: true});
    return (a, b) => {
      const [x, y] = [data.rows[a].sort[column], data.rows[b].sort[column]];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return sign * (data.numbers[column] ? x - y : text.compare(x, y)) || a - b;
    };
  }

  const flat = make("tbody", {id: "mixed"});

  let arranged = "";

  function arrange(places, mixed) {
    const parts = bodies.map(() => document.createDocumentFragment());
    const together = document.createDocumentFragment();
    for (const place of places) (mixed ? together : parts[data.rows[place].group]).append(lines[place]);
    parts.forEach((part, group) => bodies[group].append(part));
    flat.append(together);
  }

  function drawTable(query) {
    const shown = visibleRows(query);
    const mixed = query.get("mixed") === "1";
    const sorted = query.get("sort") || "";
    const descending = sorted.startsWith("-");
    const column = data.columns.indexOf(sorted.replace(/^-/, ""));
    const places = [...data.rows.keys()];
    if (column >= 0) places.sort(order(column, descending));
    else if (mixed && data.columns.includes("ap")) places.sort(order(data.columns.indexOf("ap"), true));

    const wanted = `${mixed} ${places}`;
    if (wanted !== arranged) arrange(places, mixed); // a filter alone moves nothing
    arranged = wanted;
    const filled = new Set(data.rows.filter((_, place) => shown[place]).map((row) => row.group));
    lines.forEach((line, place) => {
      line.hidden = !shown[place];
    });
    bodies.forEach((body, group) => {
      body.hidden = mixed || !filled.has(group);
    });
    flat.hidden = !mixed;
    table.classList.toggle("mixed", mixed && filled.size > 1);
    for (const heading of table.tHead.rows[0].cells) {
      const own = heading.dataset.column !== undefined && heading.dataset.column === data.columns[column];
      if (own) heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    }
    byId("legend")
      .querySelectorAll("dl > div")
      .forEach((each, group) => {
        each.hidden = !filled.has(group);
      });
    const count = shown.filter(Boolean).length;
    byId("count").textContent = `${count} of ${data.rows.length} records`;
    byId("empty").hidden = count > 0;
  }

  function prepareTable() {
    table.append(flat);
    for (const heading of table.tHead.querySelectorAll("th[data-column]")) {
      const name = heading.dataset.column;
      const button = make("button", {type: "button"}, heading.textContent);
      button.addEventListener("click", () => {
        const now = route().query.get("sort");
        const numeric = data.numbers[data.columns.indexOf(name)];
        const [first, second] = numeric ? [`-${name}`, name] : [name, `-${name}`];
        change("sort", now === first ? second : first);
      });
      heading.replaceChildren(button);
    }
    lines.forEach((line, place) => {
      const row = data.rows[place];
      const button = line.querySelector(".reported button");
      if (button) explain(button, reportedLines(row));
      const mark = line.querySelector("th sup");
      if (mark) explain(mark, row.notes);
    });
  }

  function reportedLines(row) {
    const numbers = Object.entries(row.reported.metrics).map(([name, value]) => `${name} ${oneDecimal(value)}`);
    const differs = data.pool[row.reported.differs];
    return [
      row.reported.source,
      numbers.join(", "),
      ...(differs.length ? ["Protocol differs:", ...differs.map((text) => `· ${text}`)] : []),
    ];
  }

  // ---------------------------------------------------------------------------------------------------- charts

  const SHAPES = {
    o: "M-1 0A1 1 0 1 0 1 0A1 1 0 1 0-1 0Z",
    s: "M-.9-.9H.9V.9H-.9Z",
    "^": "M0-1.15L1.1.85H-1.1Z",
    D: "M0-1.25L1.15 0L0 1.25L-1.15 0Z",
    v: "M0 1.15L1.1-.85H-1.1Z",
    P: "M-.4-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z",
    X: "M0-.5L.6-1.1L1.1-.6L.5 0L1.1.6L.6 1.1L0 .5L-.6 1.1L-1.1.6L-.5 0L-1.1-.6L-.6-1.1Z",
    "<": "M-1.15 0L.85-1.1V1.1Z",
    ">": "M1.15 0L-.85-1.1V1.1Z",
  };

  // one colour and one marker per method, the same in every chart
  function look(method) {
    const place = data.methods.indexOf(method);
    return {
      colour: `var(--series-${place % data.colours})`,
      shape: SHAPES[data.markers[place % data.markers.length]],
    };
  }

  function marker(method, size = 4.5) {
    const {colour, shape} = look(method);
    return draw("path", {
      class: "mark",
      d: shape,
      transform: `scale(${size})`,
      fill: colour,
      stroke: colour,
      "stroke-width": 1.6,
      "vector-effect": "non-scaling-stroke",
    });
  }

  function point(method, x, y, words, kind = "") {
    const made = draw(
      "g",
      {
        class: `point ${kind}`,
        transform: `translate(${x} ${y})`,
        tabindex: 0,
        role: "img",
        "aria-label": words.join("; "),
      },
      draw("circle", {class: "halo", r: 9}),
      marker(method)
    );
    return explain(made, words);
  }

  const EDGE = {left: 40, right: 16, top: 10, bottom: 44};

  function axes(width, height, x, y) {
    const scale = x.log ? Math.log : (value) => value;
    const [low, high] = [scale(x.low), scale(x.high)];
    const px = (value) => EDGE.left + ((scale(value) - low) / (high - low)) * (width - EDGE.left - EDGE.right);
    const py = (value) => height - EDGE.bottom - (value / y.high) * (height - EDGE.top - EDGE.bottom);
    const picture = draw("svg", {
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: "group",
      "aria-label": x.title,
    });
    const step = y.high > 50 ? 20 : y.high > 20 ? 10 : 5;
    for (let value = 0; value <= y.high; value += step) {
      picture.append(
        draw("path", {class: "axis", d: `M${EDGE.left} ${py(value)}H${width - EDGE.right}`}),
        draw("text", {x: EDGE.left - 7, y: py(value) + 4, "text-anchor": "end"}, String(value))
      );
    }
    for (const [value, label] of x.ticks) {
      picture.append(
        draw("path", {class: "axis", d: `M${px(value)} ${height - EDGE.bottom}v4`}),
        draw("text", {x: px(value), y: height - EDGE.bottom + 17, "text-anchor": "middle"}, label)
      );
    }
    picture.append(
      draw("text", {x: (EDGE.left + width - EDGE.right) / 2, y: height - 6, "text-anchor": "middle"}, x.label)
    );
    return {picture, px, py};
  }

  const ceiling = (values) => Math.min(100, 10 * Math.ceil((Math.max(10, ...values) + 3) / 10));

  function details(row, group) {
    const costs = row.costs;
    return [
      [row.method, row.name].filter(Boolean).join(", "),
      ...Object.entries(row.metrics)
        .slice(0, 6)
        .map(([name, values]) => `${name} ${measured(values)}`),
      [
        costs.params !== undefined && `${number(costs.params)} M parameters`,
        costs.macs !== undefined && `${number(costs.macs)} GMACs`,
        costs.latency !== undefined && `${number(costs.latency)} ms`,
        costs.speed !== undefined && `${Math.round(costs.speed)} images/s`,
      ]
        .filter(Boolean)
        .join(", "),
      [row.res, row.backbone, row.seed === null ? "" : `seed ${row.seed}`, `protocol ${group.letter}`]
        .filter(Boolean)
        .join(", "),
      row.training,
      ...row.notes,
    ].filter(Boolean);
  }

  // what is shown of every line, several seeds of one size as one place with their mean
  function places(group, own, shown) {
    return group.lines.flatMap((line, number) =>
      line.points.flatMap(([res, height, numbers]) => {
        const rows = numbers.map((each) => own[each]).filter((row) => shown.has(row) && row.metrics[group.heading]);
        const values = rows.map((row) => row.metrics[group.heading][0]);
        return rows.length ? [{line, number, res, height, rows, values, mean: mean(values)}] : [];
      })
    );
  }

  function described({line, res, rows, values, mean: middle}, group) {
    if (rows.length === 1) return [line.label, ...details(rows[0], group).slice(1)];
    const range = `${oneDecimal(Math.min(...values))} to ${oneDecimal(Math.max(...values))}`;
    return [
      line.label,
      `${group.heading} ${oneDecimal(middle)}, mean over ${rows.length} seeds, ${range}, at ${res}`,
      ...rows.map((row) => `seed ${row.seed}: ${measured(row.metrics[group.heading])}`),
      ...details(rows[0], group).filter((text) => /GMACs|parameters/.test(text)),
    ];
  }

  function overResolution(group, own, shown, width) {
    const all = places(group, own, shown);
    const sizes = new Map(all.map((each) => [each.height, each.res]));
    if (sizes.size < 2) return null;
    const heights = [...sizes.keys()].sort((a, b) => a - b);
    // only where both were scored on the same data; two rows may stand beside the same printed one
    const reported = new Map(
      own
        .filter((row) => shown.has(row) && row.reported && row.reported.same_data && row.reported.metrics.AP)
        .map((row) => [[row.method, row.res, row.reported.metrics.AP, row.reported.source].join(), row])
    );
    const highest = [
      ...all.flatMap((each) => each.rows.map((row) => Math.max(...row.metrics[group.heading]))),
      ...[...reported.values()].map((row) => row.reported.metrics.AP),
    ];
    const {picture, px, py} = axes(
      width,
      330,
      {
        log: true,
        low: heights[0] / 2 ** 0.35,
        high: heights[heights.length - 1] * 2 ** 0.35,
        ticks: heights.map((height) => [height, sizes.get(height)]),
        label: "crop, height x width (px)",
        title: `${group.heading} over resolution`,
      },
      {high: ceiling(highest)}
    );
    const numbers = [...new Set(all.map((each) => each.number))];
    numbers.forEach((number, rank) => {
      const own = all.filter((each) => each.number === number);
      const {method} = own[0].line;
      const {colour} = look(method);
      const series = draw("g", {class: "series", "data-method": method});
      // a little to the side, so that equal numbers do not hide each other
      const aside = 2 ** ((rank - (numbers.length - 1) / 2) / (7 * Math.max(4, numbers.length)));
      const at = own.map((each) => [px(each.height * aside), py(each.mean)]);
      series.append(draw("path", {class: "path", stroke: colour, d: `M${at.map((each) => each.join(" ")).join("L")}`}));
      own.forEach((each, index) => {
        const [x, y] = at[index];
        const [, low, high] = each.rows[0].metrics[group.heading];
        if (each.rows.length > 1) {
          const [worst, best] = [Math.min(...each.values), Math.max(...each.values)];
          series.append(draw("path", {class: "spread", stroke: colour, d: `M${x} ${py(worst)}V${py(best)}`}));
        } else if (low !== undefined) {
          series.append(draw("path", {class: "bar", stroke: colour, d: `M${x} ${py(low)}V${py(high)}`}));
        }
        series.append(point(method, x, y, described(each, group)));
      });
      picture.append(series);
    });
    for (const row of reported.values()) {
      const words = [`${row.method}, reported, not measured here`, ...reportedLines(row)];
      const made = point(row.method, px(Number(row.res.split("x")[0])), py(row.reported.metrics.AP), words, "hollow");
      picture.append(draw("g", {class: "series", "data-method": row.method}, made));
    }
    const hollow = reported.size ? " Hollow: reported by papers, not measured here." : "";
    const legend = `, %. Thin bars: 95 % over images; broad bars: worst to best of several seeds.${hollow}`;
    return make(
      "figure",
      {},
      make("figcaption", {}, make("b", {}, `${group.heading} over resolution`), legend),
      picture
    );
  }

  function logTicks(low, high) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const factor of high / low > 30 ? [1, 3] : [1, 2, 5]) {
        const value = Number((factor * 10 ** power).toPrecision(3));
        if (value >= low && value <= high) ticks.push([value, number(value)]);
      }
    }
    return ticks;
  }

  function pareto(group, own, shown, width, cost, label) {
    const all = places(group, own, shown)
      .map((each) => ({...each, cost: mean(each.rows.map((row) => row.costs[cost]))}))
      .filter((each) => each.cost > 0);
    if (all.length < 2) return null;
    // the rule of lrbench.report.frontier: cheapest first, of equally cheap ones the best
    all.sort((a, b) => a.cost - b.cost || b.mean - a.mean);
    const front = new Set();
    let [best, dearest] = [-Infinity, -Infinity];
    for (const each of all) {
      if (each.mean > best || (each.mean === best && each.cost === dearest)) front.add(each);
      if (each.mean > best) [best, dearest] = [each.mean, each.cost];
    }
    const [low, high] = [all[0].cost / 1.3, all[all.length - 1].cost * 1.3];
    const title = `${group.heading} over ${label}`;
    const {picture, px, py} = axes(
      width,
      330,
      {log: true, low, high, ticks: logTicks(low, high), label, title},
      {high: ceiling(all.map((each) => each.mean))}
    );
    const steps = [...front].map(
      (each, index) => `${index ? "H" : "M"}${px(each.cost)}${index ? "V" : " "}${py(each.mean)}`
    );
    picture.append(draw("path", {class: "front", d: `${steps.join("")}H${width - EDGE.right}`}));
    for (const each of all) {
      const kind = front.has(each) ? "on-front" : "behind";
      const words = [...described(each, group), ...(front.has(each) ? ["on the Pareto front"] : [])];
      const made = point(each.line.method, px(each.cost), py(each.mean), words, kind);
      picture.append(draw("g", {class: "series", "data-method": each.line.method}, made));
    }
    const named = []; // where names stand, so that they do not cover each other
    for (const {line, res, ...each} of [...front].reverse()) {
      const [x, y] = [px(each.cost), py(each.mean)];
      if (named.some((other) => Math.abs(other.x - x) < 130 && Math.abs(other.y - y) < 15)) continue;
      const end = x > width / 2;
      const text = {class: "value name", x: x + (end ? -9 : 9), y: y - 9, "text-anchor": end ? "end" : "start"};
      picture.append(draw("text", text, `${line.method} ${res}`));
      named.push({x, y});
    }
    const legend =
      ". Dotted: Pareto front, which no cheaper row reaches; rows behind it are pale. Several seeds: mean.";
    return make("figure", {}, make("figcaption", {}, make("b", {}, title), legend), picture);
  }

  function legend(methods, around) {
    const list = make("div", {class: "legend", role: "group", "aria-label": "Highlight a method"});
    for (const method of methods) {
      const icon = draw(
        "svg",
        {width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true"},
        marker(method, 4)
      );
      const button = make("button", {type: "button", "aria-pressed": "false"}, icon, method);
      button.addEventListener("click", () => {
        const pressed = button.getAttribute("aria-pressed") !== "true";
        for (const other of list.children) other.setAttribute("aria-pressed", String(other === button && pressed));
        around.classList.toggle("chosen", pressed);
        for (const series of around.querySelectorAll(".series")) {
          series.classList.toggle("on", series.dataset.method === method);
        }
      });
      list.append(button);
    }
    return list;
  }

  function fillCharts(block, number, shown) {
    const group = data.groups[number];
    const own = members[number];
    const panels = make("div", {class: "charts"});
    block.append(panels);
    const width = Math.max(
      260,
      Math.min(620, panels.clientWidth > 920 ? (panels.clientWidth - 30) / 2 : panels.clientWidth)
    );
    const figures = [
      overResolution(group, own, shown, width),
      pareto(group, own, shown, width, "macs", "GMACs"),
      pareto(group, own, shown, width, "latency", "latency (ms)"),
    ].filter(Boolean);
    panels.append(...figures);
    if (!figures.length) {
      panels.append(make("p", {class: "dim"}, "Nothing to draw: fewer than two rows with numbers."));
      return;
    }
    const methods = data.methods.filter((method) => own.some((row) => shown.has(row) && row.method === method));
    panels.before(legend(methods, block));
    if (group.shared) block.append(make("p", {class: "dim"}, `All lines: ${group.shared}.`));
  }

  function drawPlots(query) {
    const visible = visibleRows(query);
    const shown = new Set(data.rows.filter((_, place) => visible[place]));
    const charts = byId("charts");
    charts.replaceChildren();
    let open = true;
    data.groups.forEach((group, number) => {
      if (!members[number].some((row) => shown.has(row))) return;
      const block = make("div");
      const details = make(
        "details",
        {open: open ? "" : false},
        make("summary", {}, make("b", {}, group.letter), ` ${group.words}`),
        block
      );
      charts.append(details);
      if (open) fillCharts(block, number, shown);
      else details.addEventListener("toggle", () => fillCharts(block, number, shown), {once: true});
      open = false;
    });
    byId("count").textContent = `${shown.size} of ${data.rows.length} records`;
  }

  // ---------------------------------------------------------------------------------------------------- one method

  function bars(title, values, width) {
    const [left, step] = [112, 19];
    const picture = draw("svg", {
      width,
      height: values.length * step + 4,
      viewBox: `0 0 ${width} ${values.length * step + 4}`,
      role: "img",
      "aria-label": title,
    });
    const length = width - left - 84;
    values.forEach(({label, value, low, high, note}, place) => {
      const y = place * step;
      picture.append(draw("text", {x: left - 8, y: y + 14, "text-anchor": "end"}, label));
      if (value !== null) {
        picture.append(
          draw("rect", {
            x: left,
            y: y + 4,
            width: Math.max(0.5, (length * value) / 100),
            height: 11,
            fill: "var(--series-0)",
          })
        );
      }
      if (low !== undefined) {
        picture.append(
          draw("path", {
            class: "bar",
            stroke: "var(--text)",
            d: `M${left + (length * low) / 100} ${y + 9.5}H${left + (length * high) / 100}`,
          })
        );
      }
      const end = left + (length * Math.max(value ?? 0, high ?? 0)) / 100;
      picture.append(
        draw(
          "text",
          {class: "value", x: end + 6, y: y + 14},
          oneDecimal(value),
          note ? draw("tspan", {fill: "var(--dim)"}, `  ${note}`) : ""
        )
      );
    });
    return make("div", {}, make("h4", {}, title), picture);
  }

  function inShort(row) {
    const seed = row.seed === null ? "" : `seed ${row.seed}`;
    return [row.res, row.name, row.backbone, row.training, seed].filter(Boolean).join(" · ");
  }

  function errorBars(rows, width) {
    const kinds = data.errors;
    const box = make("div", {}, make("h4", {}, "Errors: share of labelled keypoints of matched persons, %"));
    for (const row of rows) {
      const errors = row.diagnosis.errors;
      const words = kinds.filter((kind) => kind in errors).map((kind) => `${kind} ${oneDecimal(errors[kind])}`);
      const picture = draw("svg", {
        width,
        height: 18,
        viewBox: `0 0 ${width} 18`,
        role: "img",
        tabindex: 0,
        "aria-label": words.join(", "),
      });
      let x = 0;
      for (const kind of kinds.filter((each) => errors[each] > 0)) {
        const length = (width * errors[kind]) / 100;
        picture.append(
          draw("rect", {x, y: 1, width: Math.max(0, length - 1), height: 16, fill: `var(--${kind}, var(--dim))`})
        );
        x += length;
      }
      if (rows.length > 1) box.append(make("div", {class: "dim"}, inShort(row)));
      box.append(explain(picture, words));
    }
    const shares = rows.length === 1 ? rows[0].diagnosis.errors : {};
    box.append(
      make(
        "ul",
        {class: "keys"},
        ...kinds.map((kind) => {
          const swatch = make("span", {class: "swatch"});
          swatch.style.background = `var(--${kind}, var(--dim))`;
          return make("li", {}, swatch, kind in shares ? `${kind} ${oneDecimal(shares[kind])}` : kind);
        })
      )
    );
    return box;
  }

  const between = (low, high) => (high === null ? `${low} and more` : `${low} to ${high}`);

  function facts(pairs) {
    const list = make("dl", {class: "facts"});
    for (const [name, value] of pairs) {
      if (value === null || value === undefined || value === "") continue;
      list.append(make("dt", {}, name), make("dd", {}, String(value)));
    }
    return list;
  }

  // nested settings by their path: "codec.grid.stride"
  function flattened(value, path = "") {
    if (value === null || typeof value !== "object") return [[path, String(value)]];
    if (Array.isArray(value) && value.every((each) => each === null || typeof each !== "object")) {
      return [[path, value.join(", ")]];
    }
    return Object.entries(value).flatMap(([name, inner]) => flattened(inner, path ? `${path}.${name}` : name));
  }

  function metricTable(row) {
    const body = Object.entries(row.metrics).map(([name, [value, low, high]]) =>
      make(
        "tr",
        {},
        make("th", {scope: "row"}, name),
        make("td", {class: "number"}, oneDecimal(value)),
        make("td", {class: "number"}, low === undefined ? ABSENT : `${oneDecimal(low)}..${oneDecimal(high)}`),
        row.reported ? make("td", {class: "number reported"}, oneDecimal(row.reported.metrics[name])) : null
      )
    );
    const headings = ["metric", "%", "95 % interval", ...(row.reported ? ["reported"] : [])];
    return make(
      "div",
      {},
      make("h4", {}, "Metrics"),
      make(
        "table",
        {class: "plain"},
        make("thead", {}, make("tr", {}, ...headings.map((text) => make("th", {scope: "col"}, text)))),
        make("tbody", {}, ...body)
      ),
      row.reported
        ? make("p", {class: "reported"}, [row.reported.source, ...reportedLines(row).slice(2)].join(" "))
        : null
    );
  }

  function stick(points, bones, kind, colour) {
    const at = (index) => [points[2 * index], points[2 * index + 1]];
    const lines = bones.map(([a, b]) =>
      draw("path", {class: `bone ${kind}`, stroke: colour, d: `M${at(a).join(" ")}L${at(b).join(" ")}`})
    );
    const joints = kind
      ? []
      : Array.from({length: points.length / 2}, (_, k) =>
          draw("circle", {cx: at(k)[0], cy: at(k)[1], r: 1.8, fill: "var(--text)"})
        );
    return [...lines, ...joints];
  }

  function people(row) {
    const group = data.groups[row.group];
    const drawn = group.drawn;
    const reference = members[row.group].find((each) => each.key === drawn.reference);
    const figures = drawn.images.map((image, person) => {
      const points = row.figures[person];
      const picture = points
        ? draw(
            "svg",
            {
              viewBox: "0 0 100 100",
              width: 104,
              height: 104,
              role: "img",
              "aria-label": `predicted person in picture ${image}`,
            },
            ...(reference === row ? [] : stick(reference.figures[person], drawn.bones, "ghost", "")),
            ...stick(points, drawn.bones, "", look(row.method).colour)
          )
        : make("div", {class: "absent dim"}, ABSENT);
      return make(
        "figure",
        {},
        picture,
        make("figcaption", {}, `picture ${image}, score above ${drawn.shares[person]} %`)
      );
    });
    const best = [reference.method, reference.res, reference.name].filter(Boolean).join(", ");
    const other = reference === row ? "" : " Grey: what that row predicts.";
    return make(
      "div",
      {},
      make("h4", {}, "Predicted persons"),
      make("div", {class: "people"}, ...figures),
      make(
        "p",
        {class: "dim"},
        [
          `The same persons in every row of protocol ${group.letter}: those whose score in its best row`,
          `(${best}) is above ${drawn.shares.join(", ")} % of the others.${other} Keypoints beyond the frame are drawn`,
          `on it; ${ABSENT}: nobody predicted there. Photographs are left out for their licences.`,
        ].join(" ")
      )
    );
  }

  function fillCard(card, row) {
    const body = card.querySelector(".body");
    if (body.childElementCount) return;
    const width = Math.max(240, Math.min(420, body.clientWidth));
    const panels = make("div", {class: "panels"}, metricTable(row));
    const diagnosis = row.diagnosis;
    if (row.keypoint_ap.length) {
      const names = data.pool[row.keypoints];
      panels.append(
        bars(
          "AP by keypoint, with this keypoint's OKS alone, %",
          names.map((name, place) => ({label: name.replaceAll("_", " "), value: row.keypoint_ap[place]})),
          width
        )
      );
    }
    if (diagnosis && diagnosis.heights.length) {
      panels.append(
        bars(
          "AP by height of the person, image px, %",
          diagnosis.heights.map(([low, high, persons, value, from, to]) => ({
            label: between(low, high),
            value,
            low: from,
            high: to,
            note: `n=${persons}`,
          })),
          width
        )
      );
    }
    if (diagnosis && Object.keys(diagnosis.errors).length) panels.append(errorBars([row], width));
    if (diagnosis) {
      panels.append(
        make(
          "div",
          {},
          make("h4", {}, "More than AP"),
          facts([
            ...Object.entries(diagnosis.gains).map(([kind, gain]) => [
              `AP won without ${kind}`,
              gain === null ? ABSENT : `${gain < 0 ? "" : "+"}${oneDecimal(gain)}`,
            ]),
            ...Object.entries(diagnosis.pck).map(([fraction, share]) => [`PCK@${fraction}`, oneDecimal(share)]),
            [
              "median error",
              diagnosis.pixel_error === null ? null : `${number(diagnosis.pixel_error)} px of the image`,
            ],
            ["in the crop", diagnosis.crop_error === null ? null : `${number(diagnosis.crop_error)} px`],
            ["persons not found", diagnosis.undetected === null ? null : `${oneDecimal(diagnosis.undetected)} %`],
          ])
        )
      );
    }
    body.append(panels);
    if (row.figures) body.append(people(row));
    const counts = data.pool[row.counts];
    const origin = row.provenance;
    const versions = Object.entries(data.pool[row.versions]).map(([name, version]) => `${name} ${version}`);
    body.append(
      make(
        "div",
        {},
        make("h4", {}, "Provenance"),
        facts([
          ["record", row.key],
          ["scored", `${counts.images} images, ${counts.persons} persons, ${counts.predictions} predictions`],
          ["protocol", data.groups[row.group].words],
          ["training", row.training],
          ["weights, sha256", origin.weights_sha256],
          ["weights given", origin.weights_used],
          [
            "lrbench",
            `${origin.lrbench}, commit ${origin.commit || "not known"}, code ${origin.code_hash || "not known"}`,
          ],
          ["versions", versions.join(", ")],
          ["device", `${origin.device}, precision ${origin.precision}, ${origin.threads} threads`],
          ["seed", origin.seed],
          ["UTC", origin.utc],
          ["notes", row.notes.join("; ")],
        ])
      )
    );
    const everything = {
      Settings: data.pool[row.settings],
      Training: data.pool[row.trained],
      Protocol: data.pool[row.protocol],
      Upscaler: row.upscaler === null ? null : data.pool[row.upscaler],
      Cost: row.cost,
    };
    const folded = Object.entries(everything).filter(([, value]) => value && Object.keys(value).length);
    body.append(
      make(
        "div",
        {},
        ...folded.map(([title, value]) => make("details", {}, make("summary", {}, title), facts(flattened(value))))
      )
    );
  }

  function card(row) {
    const metric = row.metrics[data.groups[row.group].heading];
    const result = make(
      "span",
      {},
      make("b", {}, metric ? `${data.groups[row.group].heading} ${oneDecimal(metric[0])}` : ABSENT)
    );
    if (metric && metric.length > 1) result.append(` ${oneDecimal(metric[1])}..${oneDecimal(metric[2])}`);
    const made = make(
      "details",
      {class: "card", "data-key": row.key},
      make("summary", {}, make("span", {class: "what"}, inShort(row)), result),
      make("div", {class: "body"})
    );
    made.addEventListener("toggle", () => made.open && fillCard(made, row));
    return made;
  }

  // errors of all rows of a group below each other
  function compared(rows) {
    const known = rows.filter((row) => row.diagnosis && Object.keys(row.diagnosis.errors).length);
    if (known.length < 2) return [];
    const block = make("div");
    const made = make("details", {class: "compared"}, make("summary", {}, `Errors of ${known.length} rows`), block);
    const fill = () => block.append(errorBars(known, Math.min(720, block.clientWidth)));
    made.addEventListener("toggle", fill, {once: true});
    return [made];
  }

  function drawMethod(article, key) {
    const box = article.querySelector(".records");
    if (!box.childElementCount) {
      data.groups.forEach((group, place) => {
        const own = members[place].filter((row) => row.method === article.dataset.method);
        if (own.length)
          box.append(make("h3", {}, `${group.letter}  ${group.words}`), ...compared(own), ...own.map(card));
      });
    }
    const wanted = box.querySelector(`[data-key="${CSS.escape(key || "")}"]`) || box.querySelector(".card");
    if (wanted) {
      wanted.open = true;
      if (key) wanted.scrollIntoView({block: "start"});
    }
  }

  // ---------------------------------------------------------------------------------------------------- the page

  function show() {
    hideTip();
    const {parts, query} = route();
    const articles = Array.from(document.querySelectorAll("article"));
    const article = parts[0] === "method" ? articles.find((each) => each.dataset.method === parts[1]) : undefined;
    const view = article ? "method" : ["plots", "methods"].includes(parts[0]) ? parts[0] : "leaderboard";
    for (const section of document.querySelectorAll("section[data-view]")) {
      section.classList.toggle("shown", section.dataset.view === view);
    }
    for (const each of articles) each.classList.toggle("shown", each === article);
    for (const link of document.querySelectorAll("nav a")) {
      const target = link.dataset.view;
      link.href = address(target === "leaderboard" ? [""] : [target], query);
      if (target === (article ? "methods" : view)) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    byId("filters").hidden = !["leaderboard", "plots"].includes(view);
    byId("filters").querySelector(".check").hidden = view !== "leaderboard";
    for (const name of FILTERS) {
      const control = byId("filters").querySelector(`[name="${name}"]`);
      if (name === "mixed") control.checked = query.get(name) === "1";
      else if (control.value !== (query.get(name) || "")) control.value = query.get(name) || "";
    }
    if (view === "leaderboard") drawTable(query);
    if (view === "plots") drawPlots(query);
    if (article) drawMethod(article, parts[2]);
    document.title = `lrbench: ${article ? parts[1] : view}`;
    if (view !== drawnView.name || parts[1] !== drawnView.part) {
      if (!parts[2]) scrollTo(0, 0);
      Object.assign(drawnView, {name: view, part: parts[1]});
    }
  }

  const drawnView = {name: "", part: undefined};

  function prepareTheme() {
    let theme = "";
    try {
      theme = localStorage.getItem("lrbench-theme") || "";
    } catch {
      // a browser may keep nothing for files
    }
    if (theme) root.dataset.theme = theme;
    byId("theme").addEventListener("click", () => {
      const dark = root.dataset.theme
        ? root.dataset.theme === "dark"
        : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      try {
        localStorage.setItem("lrbench-theme", root.dataset.theme);
      } catch {
        // as above; it holds until the page is left
      }
    });
  }

  root.classList.add("js");
  prepareTheme();
  prepareTable();
  for (const name of FILTERS) {
    const control = byId("filters").querySelector(`[name="${name}"]`);
    control.addEventListener("input", () =>
      change(name, name === "mixed" ? (control.checked ? "1" : "") : control.value)
    );
  }
  byId("reset").addEventListener("click", () => location.replace(address(route().parts, new URLSearchParams())));
  addEventListener("hashchange", show);
  let width = innerWidth;
  addEventListener("resize", () => {
    // phones also say so when their address bar hides
    if (innerWidth !== width && route().parts[0] === "plots") show();
    width = innerWidth;
  });
  show();
})();
