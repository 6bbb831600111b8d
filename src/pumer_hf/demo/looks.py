"""The styles of the page, and a few lines of script for what Gradio has no option for."""

CSS = """
.gradio-container {max-width: 1360px !important; margin: 0 auto;}
:focus-visible, label:has(:focus-visible) {
  outline: 3px solid var(--focus) !important; outline-offset: 2px !important; transition: none !important;}
.gradio-container {--focus: #1d4ed8; --bar: #4f46e5; --quiet: #4b5563; --bad: #b91c1c; --bad-fill: #fef2f2;}
.dark, .dark .gradio-container {--focus: #fde047; --bar: #a5b4fc; --quiet: #d1d5db; --bad: #fca5a5;
  --bad-fill: #3b1113;}
.gradio-container footer, .gradio-container footer *, .min_value, .max_value {color: var(--quiet) !important;}
#speed table {width: 100%; border-collapse: collapse;}
#speed th, #speed td {border: 1px solid var(--border-color-primary) !important; padding: 6px 12px;}
#speed td {overflow-wrap: normal; word-break: normal;}
#image img {background: white; color: #1f2937;}
#answers, #layers, #steps, #examples, .html-container {padding: 0 !important;}
#answers p, #layers p, #steps p {margin: 8px 0; padding: 0;}
#layers a {padding-left: 0;}
#layers h2, #steps h2, #examples h2 {font-size: 1.15em; font-weight: 600; margin: 4px 0 8px;}
.asked {font-weight: 600; overflow-wrap: anywhere;}
.small {font-size: 0.875rem; color: var(--quiet);}
.problem {border-left: 4px solid var(--bad); background: var(--bad-fill); color: var(--bad);
  padding: 8px 12px !important; overflow-wrap: anywhere;}
.cards {display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 240px), 1fr)); gap: 16px;}
.card {border: 1px solid var(--border-color-primary); border-radius: 6px; padding: 10px 14px;}
.card h3 {font-size: 1em; font-weight: 600; margin: 0 0 4px;}
.card ol {list-style: none; margin: 0; padding: 0;}
.card li {display: grid; grid-template-columns: 1fr auto; gap: 0 12px; margin: 6px 0 0;}
.card li:first-child {font-weight: 700;}
.card .name {overflow-wrap: anywhere;}
.card .score {font-variant-numeric: tabular-nums;}
.card .bar {grid-column: 1 / -1; height: 6px; background: var(--border-color-primary); border-radius: 3px;}
.card .bar span {display: block; height: 100%; background: var(--bar); border-radius: 3px;}
.card .said {white-space: pre-wrap; overflow-wrap: anywhere; min-height: 1.5em; font-size: 1.0625rem;}
.facts {display: grid; grid-template-columns: auto 1fr; gap: 2px 12px; margin: 8px 0 0; font-size: 0.875rem;}
.facts dt {color: var(--quiet);}
.facts dd {margin: 0; font-variant-numeric: tabular-nums;}
.panels {display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 220px), 1fr)); gap: 16px;}
.panels figure {margin: 0; max-width: 480px;}
.panels img {width: 100%; height: auto; display: block; margin: 0; box-sizing: border-box;
  border: 1px solid var(--border-color-primary);}
.panels figcaption {margin-top: 6px; font-size: 0.9375rem; overflow-wrap: anywhere;}
.legend {list-style: none; margin: 0 0 12px; padding: 0; font-size: 0.9375rem;}
.legend li {display: flex; gap: 10px; align-items: center; margin: 4px 0;}
.swatch {flex: none; width: 36px; height: 36px; margin: 0; border: 1px solid #71717a; box-sizing: border-box;}
.steps {margin: 0; padding-left: 20px;}
.steps li {margin: 4px 0;}
.examples {display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 140px), 1fr)); gap: 8px;
  max-height: 340px; overflow-y: auto; padding: 4px;}
.examples button {display: flex; gap: 8px; align-items: center; margin: 0; padding: 6px; box-sizing: border-box;
  text-align: left; cursor: pointer; font-size: 0.875rem; font-weight: 400; line-height: 1.3; overflow-wrap: anywhere;
  color: var(--body-text-color); background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); border-radius: 6px;}
.examples button:hover {border-color: var(--focus);}
.examples span {font-weight: 400;}
.examples img {width: 40px; height: 40px; object-fit: contain; flex: none; margin: 0;}
"""
PIXELATED_BELOW = 128
"""If a model's images have fewer pixels a side, the page shows them without smoothing."""
PIXELATED_CSS = """
#image img {width: 100%; height: 100%; object-fit: contain;}
#image img, .examples img {image-rendering: pixelated;}
"""

HEAD = """<script>
// Fields for numbers take digits and a point, in every browser.
document.addEventListener("beforeinput", (event) => {
  if (event.target.type === "number" && event.data && /[^0-9.]/.test(event.data)) event.preventDefault();
}, true);
// The image has a text alternative, in every version of Gradio.
new MutationObserver(() => {
  for (const image of document.querySelectorAll("#image img:not([alt]), #image img[alt='']"))
    image.alt = "The image to ask about";
}).observe(document.documentElement, {childList: true, subtree: true});
</script>"""
PICK = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("click", {index: Number(button.dataset.index)});
});"""
"""The script that says which example was clicked."""
