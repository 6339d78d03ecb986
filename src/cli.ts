#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command, CommanderError } from 'commander'
import { buildCommand } from './cli-build.ts'
import { catalogCommand } from './cli-catalog.ts'
import { deadCommand } from './cli-dead.ts'
import { doctorCommand } from './cli-doctor.ts'
import { eraseCommand } from './cli-erase.ts'
import { exportCommand } from './cli-export.ts'
import { importCommand } from './cli-import.ts'
import { keysCommand } from './cli-keys.ts'
import { examples, type Cli } from './cli-options.ts'
import { questionCommands } from './cli-questions.ts'
import { replayCommand } from './cli-replay.ts'
import { withoutSecrets } from './cli-settings.ts'
import { tailCommand } from './cli-tail.ts'
import { trackCommand } from './cli-track.ts'
import { upCommand } from './cli-up.ts'
import { workerCommand } from './cli-worker.ts'
import { Terminal, visible } from './terminal.ts'

// What a command needs beyond its flags is loaded when it runs, so that --help and mistakes answer at once.

/** The exit codes beside 0. */
const FAILED = 1, USAGE = 2, SIGNALLED = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }

/**
 * `actorscope`: the command line.
 *
 * @returns the exit code: 0; 1 where it was refused or failed; 2 where the command makes no sense; 128 and the
 *   signal's number where a signal ended it before it was done
 */
async function main(args: string[]): Promise<number> {
  const { environment, terminal, interrupted } = prepare()
  try {
    await program({ environment, terminal, interrupted }).parseAsync(args, { from: 'user' })
    return Number(process.exitCode ?? 0)
  } catch (error) {
    terminal.showBar('')
    if (interrupted.aborted) return SIGNALLED[interrupted.reason as keyof typeof SIGNALLED]
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE
    const isInFull = args.includes('--debug')
    const safe = withoutSecrets(isInFull ? inFull(error) : inOneLine(error), environment)
    terminal.say(terminal.talkColors.red(isInFull ? safe : visible(safe)))
    return FAILED
  }
}

function prepare(): Cli {
  const terminal = new Terminal(process.stdout, process.stderr, process.env)
  // Who reads the output may have seen enough (| head): that is a good end. Who reads the talk may be gone.
  process.stdout.on('error', endQuietly)
  process.stderr.on('error', () => {})
  return { environment: process.env, terminal, interrupted: onInterrupt() }
}

function endQuietly(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error
  process.exit()
}

/** Aborts at the first signal, with its name; the second one ends the process on the spot. */
function onInterrupt(): AbortSignal {
  const controller = new AbortController()
  for (const [signal, code] of Object.entries(SIGNALLED)) {
    process.on(signal, () => {
      if (controller.signal.aborted) process.exit(code)
      controller.abort(signal)
    })
  }
  return controller.signal
}

function program(cli: Cli): Command {
  const commands = [
    trackCommand, tailCommand, importCommand, ...questionCommands, keysCommand, buildCommand, catalogCommand,
    workerCommand, replayCommand, deadCommand, exportCommand, eraseCommand, upCommand, doctorCommand,
  ]
  const command = new Command('actorscope')
    .description('Product analytics inside Postgres that knows who did something and for whom.')
    .version(version(), '-V, --version', 'print the version')
    .addHelpText('after', examples(`
actorscope up                                           run everything on this machine
actorscope track 'Report Exported' --app com.acme.app   record an event
actorscope track --file events.jsonl                    record many
actorscope tail --app com.acme.app                      watch them come in
actorscope activity --since 30d                         see how much happens
actorscope doctor                                       check an installation`) + `
Environment:
  ACTORSCOPE_URL, ACTORSCOPE_PUBLISHABLE_KEY              the project; without them, the local stack
  ACTORSCOPE_API_KEY                                      act with an API key, or
  ACTORSCOPE_EMAIL, ACTORSCOPE_PASSWORD                   sign in as a person, or
  ACTORSCOPE_ACCESS_TOKEN                                 be signed in already, or
  ACTORSCOPE_SECRET_KEY                                   be the service role
  DATABASE_URL                                            Postgres itself, for all that goes past the API; and for
                                                          questions, where there are no credentials
  NO_COLOR, FORCE_COLOR                                   without colours, or with them even in a pipe
  Secrets are no flags, since the list of processes shows those.

Exit codes:
  0 done   1 refused or failed   2 no such command or flag   130 interrupted by Ctrl-C
`)
  for (const create of commands) command.addCommand(create(cli))
  return withOneLineErrors(command, cli)
}

function version(): string {
  return JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')).version
}

/** Has a command and those below it throw instead of ending the process, and say what was wrong in one line. */
function withOneLineErrors(command: Command, cli: Cli): Command {
  command.exitOverride()
  command.configureOutput({
    getOutHasColors: () => cli.terminal.colors.isColorSupported,
    getErrHasColors: () => cli.terminal.talkColors.isColorSupported,
    outputError: (text) => {
      const said = text.trim().replace(/^error: /, '').replace(/\n\((.*)\)$/, '. $1')
      cli.terminal.say(cli.terminal.talkColors.red(`usage: ${visible(said)} (See ${pathOf(command)} --help.)`))
    },
  })
  command.configureHelp({ styleTitle: (title) => cli.terminal.colors.bold(title) })
  for (const child of command.commands) withOneLineErrors(child, cli)
  return command
}

function pathOf(command: Command): string {
  return command.parent ? `${pathOf(command.parent)} ${command.name()}` : command.name()
}

/** `code: details (hint)`, as far as an error has them. */
function inOneLine(error: unknown): string {
  const { code, details, hint, message, name } = error as
    { code?: unknown, details?: string, hint?: string, message?: string, name?: string }
  const expected = name === 'TrackingError' || name === 'StackError'
  const said = expected ? details ?? (message === code ? undefined : message) : message || String(error)
  const line = said ? `${expected ? code : 'unexpected_error'}: ${said}` : String(code)
  const wayOut = expected ? hint : 'Run it again with --debug to see where it comes from, and please report it.'
  return wayOut ? `${line} (${wayOut})` : line
}

function inFull(error: unknown): string {
  const stacks = (one: unknown): string[] =>
    (one instanceof Error ? [one.stack ?? one.message, ...stacks(one.cause)] : [])
  return [inOneLine(error), stacks(error).join('\ncaused by ')].join('\n')
}

const code = await main(process.argv.slice(2))
// What a catalog's module left open must not keep the process; what was printed must be out.
process.stdout.write('', () => process.exit(code))
