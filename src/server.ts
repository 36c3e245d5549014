import { isIPv6 } from 'node:net';
import { App } from './app.js';
import {
  type Environment,
  parseArguments,
  print,
  readEnvironment,
  runCommand,
} from './commands/command.js';
import {
  findCertificateProblems,
  formatWelcome,
  type Preparation,
  prepareStart,
} from './commands/first-start.js';
import { type Config, loadConfig } from './config/config.js';
import { openLogger, type ProcessLogger } from './logging/logger.js';
import { handleSignals, type SignalHandlers } from './signals.js';
import { version } from './version.js';

const usage = `Herald ${version} logs people in and pushes events to them: Server-Sent Events over HTTP/2.

Usage: node dist/server.js [options]

  --help, -h       prints this
  --version, -v    prints the version

Settings are environment variables, or lines of a file .env in the working directory.
.env.example lists all of them, with their defaults.

  npm run sync         creates and migrates the tables
  npm run seed         creates the demo user
  npm run user         creates and changes users
  npm run key          creates and revokes API keys
  npm run certificate  creates a certificate for development

Signals:     SIGTERM, SIGINT  stop gracefully; a second one stops at once
             SIGHUP           reopen the log files and reload the certificate
             SIGUSR1          ignored
Exit codes:  0 stopped as asked, 1 could not start or continue, 2 wrong arguments`;

/**
 * Starts the server (see `usage` for settings, signals and exit codes). Resolves when it listens.
 */
async function main(): Promise<void> {
  const start = new AbortController();
  const handlers: SignalHandlers = {
    stop: (signal) => start.abort(signal),
    forceStop: () => process.exit(1),
    reload() {},
    ignore() {},
  };
  handleSignals(handlers); // First, so that a signal during startup is handled too.
  const preparation = await prepare(readEnvironment());
  const { config } = preparation;
  const log = await openLogger(config.log);
  handlers.reload = () => log.reopen();
  handlers.ignore = (signal) =>
    log.warn({ signal }, 'signal ignored, SIGHUP reopens the log files');
  warnAboutOldNode(log);
  const app = await openApp(preparation, log, start.signal);
  const { host, tls } = config.http;
  const scheme = tls ? 'https' : 'http';
  const url = `${scheme}://${isIPv6(host) ? `[${host}]` : host}:${app.port}`;
  const reloaded = tls ? 'log files reopened and certificate reloaded' : 'log files reopened';
  installHandlers(app, log, handlers, reloaded);
  const { dialect } = config.database;
  log.info({ url, version, node: process.version, dialect }, 'listening');
  const welcome = formatWelcome(preparation, url);
  if (welcome !== '') print(`\n${welcome}\n`);
}

async function prepare({ env, hasEnvFile, problems }: Environment): Promise<Preparation> {
  const alsoCheck = (config: Config) => [...problems, ...findCertificateProblems(config)];
  const config = loadConfig(env, { alsoCheck });
  // Removes secrets from the environment, because crash reports and child processes would expose
  // them.
  for (const name of Object.keys(env)) {
    if (/(SECRET|SECRETS|PASSWORD|PEPPER|PEPPER_PREVIOUS)$/.test(name)) delete process.env[name];
  }
  return prepareStart(config, { hasEnvFile });
}

async function openApp(
  { config }: Preparation,
  log: ProcessLogger,
  signal: AbortSignal,
): Promise<App> {
  try {
    return await App.open({ config, log, signal });
  } catch (cause) {
    if (signal.aborted) log.info({ signal: signal.reason }, 'stopped during startup');
    else log.error({ cause }, 'could not start');
    await log.close();
    if (signal.aborted) process.exit(0);
    throw cause;
  }
}

/** Installs what the process does on signals and defects. Logs `reloaded` after a successful SIGHUP. */
function installHandlers(
  app: App,
  log: ProcessLogger,
  handlers: SignalHandlers,
  reloaded: string,
): void {
  let isStopping = false;
  const stop = async (code: number, why: { signal?: string }) => {
    if (isStopping) return;
    isStopping = true;
    log.info(why, 'stopping');
    await app.close();
    log.info({}, 'stopped');
    await log.close();
    process.exit(code);
  };
  handlers.stop = (signal) => void stop(0, { signal });
  // Closes nothing else, because the database rolls back interrupted transactions.
  const exitAtOnce = () => void app.finishHashes().then(() => process.exit(1));
  handlers.forceStop = (signal) => {
    log.warn({ signal }, 'forced stop');
    exitAtOnce();
  };
  void app.failed.then(() => stop(1, {}));
  handlers.reload = () => {
    log.reopen();
    app.reloadCertificate().then(
      () => log.info({}, reloaded),
      (cause: unknown) =>
        log.error({ cause }, 'certificate reload failed, keeping the previous one'),
    );
  };
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (cause: unknown) => {
      // After a defect the state in memory is unreliable; a restarted process reads its state from the
      // database.
      log.error({ cause }, 'defect, exiting');
      exitAtOnce();
    });
  }
}

function warnAboutOldNode(log: ProcessLogger): void {
  const [major] = process.versions.node.split('.').map(Number);
  if (major !== undefined && major < 22) {
    log.warn(
      { node: process.version },
      'this Node.js version no longer gets security fixes: use 22 or later',
    );
  }
}

await runCommand(usage, async (args) => {
  const { values } = parseArguments(args, { version: { type: 'boolean', short: 'v' } });
  if (values.version === true) return print(version);
  await main();
});
if (process.exitCode !== undefined) process.exit(); // Open handles may keep the process alive.
