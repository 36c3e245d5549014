/** A SIGINT within this time after the first signal is ignored. */
const duplicateSignalMs = 1000;

/** Handlers of signals. A handler may be replaced at any time; the current one is called. */
export interface SignalHandlers {
  /** Called on the first SIGINT or SIGTERM. */
  stop: (signal: NodeJS.Signals) => void;
  /** Called on each further SIGINT or SIGTERM. Should exit at once. */
  forceStop: (signal: NodeJS.Signals) => void;
  /** Called on SIGHUP. */
  reload: () => void;
  /** Called on SIGUSR1, whose default action opens the port of Node's debugger. */
  ignore: (signal: NodeJS.Signals) => void;
}

/**
 * Installs the signal handlers. By default SIGHUP would end the process during startup, and PID 1
 * of a container would ignore SIGTERM.
 */
export function handleSignals(handlers: SignalHandlers): void {
  let stoppingSince: number | undefined;
  const onStop = (signal: NodeJS.Signals) => {
    if (stoppingSince === undefined) {
      stoppingSince = performance.now();
      return handlers.stop(signal);
    }
    // Under npm, one Ctrl-C sends two signals: the terminal sends one, and npm forwards another.
    if (signal === 'SIGINT' && performance.now() - stoppingSince < duplicateSignalMs) return;
    handlers.forceStop(signal);
  };
  process.on('SIGINT', onStop);
  process.on('SIGTERM', onStop);
  process.on('SIGHUP', () => handlers.reload());
  process.on('SIGUSR1', (signal) => handlers.ignore(signal));
}
