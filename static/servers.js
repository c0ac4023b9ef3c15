// Asks which server process is there, and who came after another one, for the presenter's bar.
"use strict";
window.servers ??= (() => {
  const FIRST_PAUSE_MS = 40, LONGEST_PAUSE_MS = 1000; // between two questions to a server that is not there
  const STORY_MS = 5000; // for the story of a crash to be written down
  const NOT_FOR_US = new Set([401, 403, 404, 429]);

  let lastRoundTrip = 0; // ms, of the last question that was answered

  // What of an answer is `wanted`, from the first one that has it; null if none does in time, or it is not for us.
  async function ask(address, patience, wanted) {
    const deadline = performance.now() + patience;
    for (let wait = FIRST_PAUSE_MS; ; wait = Math.min(wait * 1.2, LONGEST_PAUSE_MS)) {
      const asked = performance.now();
      const answer = await fetch(address, { headers: { Accept: "application/json" } }).catch(() => null);
      if (answer && NOT_FOR_US.has(answer.status)) return null;
      const said = answer?.ok ? await answer.json().catch(() => null) : null;
      if (said) lastRoundTrip = performance.now() - asked;
      const found = said && wanted(said);
      if (found) return found;
      if (performance.now() > deadline) return null;
      await new Promise((resume) => setTimeout(resume, wait));
    }
  }

  const after = (number, address) => `${address}?after=${number}`;

  // One that answers.
  const anyServer = (address, patience) => ask(address, patience, (said) => said);

  // Who has taken over from that one.
  const successorOf = (number, address, patience) => ask(after(number, address), patience, (said) => said.successor);

  // The same, once it can tell what it took over; null if it lives, or was stopped.
  const storyAfter = (number, address) => ask(after(number, address), STORY_MS, ({ has_ended, successor }) =>
    !has_ended || successor?.story || (successor && !successor.crashed) ? { story: successor?.story } : null);

  return { anyServer, successorOf, storyAfter, roundTrip: () => lastRoundTrip };
})();
