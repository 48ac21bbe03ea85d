
// Asks for what has changed, and puts it in place. All text has been escaped by the server.
let version = Number(document.body.dataset.version);
const state = document.getElementById("state");

function put(id, html) {
  const old = document.getElementById(id);
  if (!old) return;
  const open = [...old.querySelectorAll("details[open]")].map((part) => part.id);
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  const made = document.createElement("template");
  made.innerHTML = html;
  old.replaceWith(made.content);
  for (const part of open) document.getElementById(part)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function say(text) {
  if (state.textContent !== text) state.textContent = text;  // said again, it would be read out again
}

async function follow() {
  try {
    const news = await (await fetch("news?since=" + version)).json();
    put("head", news.head);
    for (const [id, html] of Object.entries(news.cards)) put(id, html);
    for (const [name, count] of Object.entries(news.counts)) document.getElementById("count-" + name).textContent = count;
    say(news.state);
    version = news.version;
  } catch {
    say(state.dataset.ended);
  }
  setTimeout(follow, 1000);
}

setTimeout(follow, 1000);
