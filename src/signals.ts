/** Two SIGINT closer together than this are one Ctrl-C. */
const duplicateSignalMs = 1000;

/** What the process does on a signal. May be exchanged as its start gets on. */
export interface SignalHandlers {
  /** To the first SIGINT or SIGTERM. */
  stop: (signal: NodeJS.Signals) => void;
  /** To one more: somebody is in a hurry. */
  forceStop: (signal: NodeJS.Signals) => void;
  /** To SIGHUP. */
  reload: () => void;
}

/**
 * From now on signals do what `reactions` says. Without it SIGHUP would end a process in its start,
 * and the first process of a container would not hear SIGTERM at all.
 */
export function handleSignals(handlers: SignalHandlers): void {
  let stoppingSince: number | undefined;
  const onStop = (signal: NodeJS.Signals) => {
    if (stoppingSince === undefined) {
      stoppingSince = performance.now();
      return handlers.stop(signal);
    }
    // Ctrl-C under npm comes twice: from the terminal, and from npm, which passes it on.
    if (signal === 'SIGINT' && performance.now() - stoppingSince < duplicateSignalMs) return;
    handlers.forceStop(signal);
  };
  process.on('SIGINT', onStop);
  process.on('SIGTERM', onStop);
  process.on('SIGHUP', () => handlers.reload());
}
