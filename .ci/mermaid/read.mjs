// Reads a JSON list of flowcharts; prints what Mermaid understood of each: its boxes, as lines of text, and arrows.
import { JSDOM } from "jsdom";

const page = new JSDOM("<!DOCTYPE html><body></body>").window;
globalThis.window = page;
globalThis.document = page.document;
const { default: mermaid } = await import("mermaid");
mermaid.initialize({ startOnLoad: false });

// How Mermaid shows a label: entities were put aside as these while it was parsed.
const shown = (text) => {
  const html = text.replaceAll("ﬂ°°", "&#").replaceAll("ﬂ°", "&").replaceAll("¶ß", ";");
  return html.split("<br>").map((line) => {
    const box = page.document.createElement("div");
    box.innerHTML = line;
    return box.textContent;
  });
};

let input = "";
for await (const chunk of process.stdin) input += chunk;
const read = [];
for (const text of JSON.parse(input)) {
  const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
  const boxes = [...db.getVertices().values()].map((box) => shown(box.text));
  read.push({ boxes, arrows: db.getEdges().length });
}
console.log(JSON.stringify(read));
