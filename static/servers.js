// Asks which server process is there, for the presenter's bar.
"use strict";
window.servers ??= (() => {
  const FIRST_PAUSE_MS = 40, LONGEST_PAUSE_MS = 1000; // between two questions to a server that is not there
  const STORY_MS = 5000; // for the story of a crash to be written down
  const NOT_FOR_US = new Set([401, 403, 404, 429]);

  let lastRoundTrip = 0; // ms, of the last question that was answered

  // What the first server after `before` says that is `wanted`; null if there is none in time, or not for us.
  async function serverAfter(before, address, patience, wanted = () => true) {
    const deadline = performance.now() + patience;
    for (let wait = FIRST_PAUSE_MS; ; wait = Math.min(wait * 1.2, LONGEST_PAUSE_MS)) {
      const asked = performance.now();
      const answer = await fetch(address, { headers: { Accept: "application/json" } }).catch(() => null);
      if (answer && NOT_FOR_US.has(answer.status)) return null;
      const server = answer?.ok ? await answer.json().catch(() => null) : null;
      if (server) lastRoundTrip = performance.now() - asked;
      if (server && server.number > before && wanted(server)) return server;
      if (performance.now() > deadline) return null;
      await new Promise((resume) => setTimeout(resume, wait));
    }
  }

  // The first server after `before` once it can tell what its start did.
  function storyAfter(before, address) {
    return serverAfter(before, address, STORY_MS, (server) => server.story || !server.crashed);
  }

  return { serverAfter, storyAfter, roundTrip: () => lastRoundTrip };
})();
