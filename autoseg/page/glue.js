// The review's buttons, and a few lines that drive the viewer. Without this script the page is as readable.
(() => {
  "use strict";
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const find = (name) => document.getElementById(name);

  // ---- review: a verdict and a comment for each case, kept by the browser, saved as JSON
  const articles = [...document.querySelectorAll("article.case")];
  const place = "autoseg review: " + page.title + ": " + page.cases.join(",");
  let review = {};
  try { review = JSON.parse(localStorage.getItem(place)) || {}; } catch { /* no storage here: kept until the page is closed */ }

  function show(article) {
    const { verdict = "", comment = "" } = review[article.dataset.case] || {};
    article.dataset.verdict = verdict;
    for (const button of article.querySelectorAll("[data-verdict]")) {
      button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
    }
    const field = article.querySelector(".review input");
    if (field.value !== comment) field.value = comment;
    for (const label of document.querySelectorAll(".verdict")) {
      if (label.dataset.of === article.dataset.case) { label.textContent = verdict; label.dataset.verdict = verdict; }
    }
  }

  function count() {
    const done = articles.filter((article) => (review[article.dataset.case] || {}).verdict).length;
    find("review-count").textContent = done + " of " + articles.length + " cases reviewed";
  }

  function change(article, entry) {
    review[article.dataset.case] = { ...review[article.dataset.case], ...entry };
    try { localStorage.setItem(place, JSON.stringify(review)); } catch { /* as above */ }
    show(article);
    count();
  }

  for (const article of articles) {
    for (const button of article.querySelectorAll("[data-verdict]")) {
      button.addEventListener("click", () => {
        const verdict = button.dataset.verdict;
        change(article, { verdict: article.dataset.verdict === verdict ? "" : verdict });
      });
    }
    article.querySelector(".review input").addEventListener("input", (event) => change(article, { comment: event.target.value }));
    show(article);
  }

  if (articles.length) {
    count();
    find("review-save").addEventListener("click", () => {
      const cases = articles.map((article) => article.dataset.case).filter((name) => review[name]);
      const record = {
        made_by: "autoseg report",
        page: page.title,
        saved: new Date().toISOString(),
        cases: cases.map((name) => ({ case: name, verdict: review[name].verdict || null, comment: review[name].comment || "" })),
      };
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([JSON.stringify(record, null, 1) + "\n"], { type: "application/json" }));
      link.download = "review.json";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  // ---- the panel: data are decoded when it is opened
  const panel = find("panel");
  if (!panel) return;
  const bytes = (name) => Uint8Array.from(atob(find(name).textContent), (letter) => letter.charCodeAt(0));
  const unpacked = (name) =>
    new Response(new Blob([bytes(name)]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();

  // NiiVue comes as a notebook's widget: it is given a model that holds these values, and hands itself over through a callback
  async function startViewer() {
    const source = new Blob([await unpacked("viewer")], { type: "text/javascript" });
    const widget = (await import(URL.createObjectURL(source))).default;
    let viewer = null;
    const listeners = {};
    const values = {
      volumes: [], meshes: [], height: 100, background_masks_overlays: 0, draw_opacity: 0.8, draw_fill_overwrites: true,
      overlay_outline_width: 0, overlay_alpha_shader: 1,
      opts: {
        isRadiologicalConvention: true, sagittalNoseLeft: true, show3Dcrosshair: true, multiplanarShowRender: 1, crosshairWidth: 0.25,
        multiplanarLayout: 2, meshThicknessOn2D: 1, clipPlaneColor: [0, 0, 0, 0],
        backColor: [0.06, 0.07, 0.08, 1], crosshairColor: [0.9, 0.9, 0.9, 0.7], dragAndDropEnabled: false,
        onOptsChange() { viewer = this; },
      },
    };
    const model = {
      get: (name) => values[name],
      on: (event, listener) => { listeners[event] = listener; },
      set() {}, save_changes() {}, off() {}, send() {},
    };
    await widget.initialize({ model });
    await widget.render({ model, el: find("stage") });
    listeners["msg:custom"]({ type: "set_interpolation", data: [true] }, []); // an option changes, so the callback comes
    viewer.setInterpolation(false);
    viewer.onLocationChange = (where) => { find("panel-status").textContent = where.string; };
    return viewer;
  }

  let starting = null;
  let shown = null; // names of the volumes, in the viewer's order

  function colourTable() {
    const channel = (i) => [0, ...page.structures.map(([, colour]) => parseInt(colour.slice(1 + 2 * i, 3 + 2 * i), 16))];
    return {
      R: channel(0), G: channel(1), B: channel(2), A: [0, ...page.structures.map(() => 255)],
      I: [0, ...page.structures.map((_, i) => i + 1)], labels: ["", ...page.structures.map(([name]) => name)],
    };
  }

  async function open(number) {
    const entry = page.panel[number];
    find("panel-case").value = String(number);
    panel.dataset.state = "loading";
    find("panel-status").textContent = "loading " + entry.case;
    if (!panel.open) panel.showModal();
    try {
      starting = starting || startViewer();
      const viewer = await starting;
      for (const mesh of [...viewer.meshes]) viewer.removeMesh(mesh);
      shown = Object.keys(entry.volumes);
      const volumes = shown.map((name) => ({
        url: bytes(entry.volumes[name]).buffer, name: name + ".nii.gz", colormap: "gray",
        ...(name === "scan" ? { cal_min: 0, cal_max: 255 } : {}),
      }));
      await viewer.loadVolumes(volumes);
      shown.forEach((name, i) => { if (name !== "scan") viewer.volumes[i].setColormapLabel(colourTable()); });
      for (const surface of entry.surfaces) {
        const colour = [0, 1, 2].map((i) => parseInt(surface.colour.slice(1 + 2 * i, 3 + 2 * i), 16));
        await viewer.addMeshFromUrl({
          url: surface.name + ".mz3", name: surface.name + ".mz3", buffer: await unpacked(surface.id), rgba255: [...colour, 255],
        });
      }
      const masks = shown.filter((name) => name !== "scan");
      find("panel-mask").replaceChildren(...[...masks, "none"].map((name) => new Option(name)));
      find("panel-surfaces").closest("label").hidden = !entry.surfaces.length;
      viewer.scene.crosshairPos = viewer.mm2frac(entry.point);
      apply(viewer);
      find("panel-status").textContent = entry.case + ": drag to turn, click to move the planes";
      panel.dataset.state = "ready";
    } catch (fault) {
      panel.dataset.state = "failed";
      find("panel-status").textContent = "The panel needs WebGL 2 and could not start here: " + fault.message;
    }
  }

  function apply(viewer) {
    const strength = Number(find("panel-strength").value);
    shown.forEach((name, i) => {
      if (name !== "scan") viewer.setOpacity(i, name === find("panel-mask").value ? strength : 0);
    });
    for (const mesh of viewer.meshes) viewer.setMeshProperty(mesh.id, "visible", find("panel-surfaces").checked);
    viewer.setSliceType(Number(find("panel-view").value));
    viewer.setClipPlane(find("panel-cut").checked ? [0.05, 250, 15] : [2, 0, 0]);
    viewer.updateGLVolume();
  }

  find("panel-case").replaceChildren(...page.panel.map((entry, i) => new Option(entry.case, String(i))));
  find("panel-case").addEventListener("change", (event) => open(Number(event.target.value)));
  const step = (by) => open((Number(find("panel-case").value) + by + page.panel.length) % page.panel.length);
  find("panel-previous").addEventListener("click", () => step(-1));
  find("panel-next").addEventListener("click", () => step(1));
  for (const name of ["panel-view", "panel-mask", "panel-strength", "panel-surfaces", "panel-cut"]) {
    find(name).addEventListener("input", async () => { if (starting && shown) apply(await starting); });
  }
  page.panel.forEach((entry, number) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "open-panel", textContent: "Show in 3D" });
    button.addEventListener("click", () => open(number));
    articles.find((article) => article.dataset.case === entry.case).querySelector("header").append(button);
  });
  panel.addEventListener("close", () => { panel.dataset.state = "closed"; });
})();
