// What the pages do beyond their HTML: local times, confirmations as dialogs, copying, and saying so when live parts fail.
"use strict";
(() => {
  const on = (name, listener) => document.addEventListener(name, listener);
  const all = (selector) => document.querySelectorAll(selector);
  const [banner, dialog, live, main] = ["banner", "dialog", "live", "main"].map((id) => document.getElementById(id));
  document.documentElement.classList.add("js");

  // Times, in the words of services/console/wording.py, and renewed as time goes by.
  const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });
  const inFull = (moment) => exact.format(moment).replace("Sept", "Sep");
  const steps = [[31536000, "year"], [2592000, "month"], [86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];

  function distance(time) {
    const seconds = Math.floor(Math.abs(Date.now() - time) / 1000);
    const isAhead = time > Date.now() + 1000;
    if (isAhead && seconds < 60) return "in less than a minute";
    const [length, unit] = steps.find((step) => seconds >= step[0]) || [];
    if (seconds < 10) return "just now";
    const number = Math.floor(seconds / length);
    const words = `${number.toLocaleString("en")} ${unit}${number === 1 ? "" : "s"}`;
    return isAhead ? `in ${words}` : `${words} ago`;
  }

  function tellTimes() {
    for (const time of all("time[datetime]")) {
      const moment = new Date(time.dateTime);
      time.title = inFull(moment);
      const text = "ago" in time.dataset ? distance(moment) : "exact" in time.dataset ? time.title : time.title.split(",")[0];
      if (time.textContent !== text) time.textContent = text;
    }
  }
  tellTimes();
  setInterval(tellTimes, 15000);

  // Parts are replaced while one works with them: a link is found again by its address, a tick by its name and value.
  const nameOf = (part) => part.getAttribute("href") || `${part.name}=${part.value}`;
  const named = (name) => Array.from(all("main a, main input")).find((part) => nameOf(part) === name);

  // Confirmations.
  let asked = "";

  on("click", (event) => {
    const opener = event.target.closest("a[data-ask]");
    if (opener && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      asked = opener.getAttribute("href");
      htmx.ajax("GET", asked, { target: dialog, swap: "innerHTML" });
    } else if (dialog.open && event.target.closest("[data-close]")) {
      event.preventDefault();
      dialog.close();
    }
  });
  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    (named(asked) || main).focus();
  });

  // Live parts: what has the focus, and what is ticked, stays so when its part is replaced.
  let focused = "";
  let ticked = [];

  on("htmx:beforeSwap", (event) => {
    const { target, xhr } = event.detail;
    if (target !== dialog) {
      focused = target.contains(document.activeElement) ? nameOf(document.activeElement) : "";
      ticked = Array.from(target.querySelectorAll("input:checked"), nameOf);
    } else if (xhr.status !== 200 || /^\s*<!doctype/i.test(xhr.responseText)) {
      // No question but an error, or the sign-in page: shown as the page that it is.
      event.detail.shouldSwap = false;
      location.assign(asked);
    }
  });
  on("htmx:afterSwap", (event) => {
    tellTimes();
    if (event.detail.target === dialog) {
      if (!dialog.open) dialog.showModal();
      return;
    }
    for (const box of all("main input[type=checkbox]")) box.checked ||= ticked.includes(nameOf(box));
    if (focused && document.activeElement === document.body) named(focused)?.focus({ preventScroll: true });
  });

  // A link in the banner is the server's word that this browser is signed out: no use in asking again.
  const isSignedOut = () => banner.querySelector("a") !== null;

  on("htmx:beforeRequest", (event) => {
    if ((isSignedOut() || document.hidden) && event.detail.target !== dialog) event.preventDefault();
  });
  function failed(event) {
    // Not for this person any more, such as an admin's page for who no longer is one.
    if ([403, 404].includes(event.detail.xhr?.status)) return location.reload();
    if (banner.childElementCount) return;
    banner.append(document.createElement("p"));
    banner.firstChild.className = "banner warn";
    banner.firstChild.textContent = "The console does not answer; trying again.";
  }
  for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) on(name, failed);
  on("read-side", (event) => {
    const { lag_s, halted } = event.detail;
    const lag = document.getElementById("lag");
    lag.hidden = lag_s === 0;
    lag.firstElementChild.textContent = lag_s;
    if (halted && !("halted" in document.body.dataset)) location.reload();
  });
  on("htmx:afterRequest", (event) => {
    if (event.detail.successful && !isSignedOut()) banner.replaceChildren();
  });

  on("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    const say = (text) => { live.textContent = button.textContent = text; };
    try {
      await navigator.clipboard.writeText(source.textContent);
      say("Copied");
    } catch {
      getSelection().selectAllChildren(source);
      say("Selected: press Ctrl+C");
    }
    setTimeout(() => { say("Copy"); live.textContent = ""; }, 4000);
  });

  // What is shown once: reload and Back get the page above it, and no cache of pages keeps the text.
  const secret = document.querySelector("[data-shown-once]");
  if (secret) {
    history.replaceState(null, "", secret.dataset.back);
    addEventListener("pagehide", () => secret.remove());
  }

  // A double click sends a form once.
  let sent = [];
  const enable = () => sent.splice(0).forEach((button) => { button.disabled = false; });
  on("submit", (event) => {
    const buttons = event.target.querySelectorAll("button:not([type=button]):enabled");
    // Later, because a disabled button is not part of what is being sent.
    setTimeout(() => buttons.forEach((button) => { button.disabled = true; sent.push(button); }));
    setTimeout(enable, 3000);
  });
  addEventListener("pageshow", (event) => {
    enable();
    if (event.persisted && secret) location.reload();
  });
})();
