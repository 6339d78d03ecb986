import { constants } from 'node:os'
import process from 'node:process'
import { commandErrorCategory, type CommandErrorCategory } from './error-categories.ts'
import { commandEvents } from './events.ts'
import { invocationContext } from './invocation.ts'
import { postSync, type PostAnswer, type PostInit } from './post-sync.ts'

/** What `trackCommand` asks of a commander program and its commands. */
export interface CommandLike {
  readonly parent: CommandLike | null
  readonly commands: readonly CommandLike[]
  readonly options: readonly { readonly long?: string, readonly short?: string, readonly negate: boolean, attributeName(): string }[]
  readonly args: readonly string[]
  name(): string
  version(): string | undefined
  opts(): object
  getOptionValue(key: string): unknown
  getOptionValueSource(key: string): string | undefined
  hook(event: 'preAction' | 'postAction', listener: (program: any, command: any) => void): unknown
  parse(argv?: readonly string[], options?: never): unknown
  parseAsync(argv?: readonly string[], options?: never): Promise<unknown>
  error(message: string, options?: Misuse): never
  help(context?: never): never
}

/** What `trackCommand` asks of a tracker. */
export interface CommandTracker {
  track(event: string, options: never): void
  flush(milliseconds?: number): Promise<unknown>
  flushSync?(post: (url: string, init: PostInit) => PostAnswer | undefined): void
}

/** How `trackCommand` works. */
export type TrackCommandOptions = {
  /** The program's version; what `program.version()` answers, where none is given. */
  version?: string
  /** The app that a command is about, where it is about one. A function is asked when a command begins and when it ends. */
  app?: string | ((command: CommandLike) => string | undefined)
  /** The organization that a command is for. Where there is an app and no organization, it is the app's owner. */
  org?: string | ((command: CommandLike) => string | undefined)
  /** More context for each event, or other values for what is there: `{ invocation_source: 'mcp' }`. */
  context?: { readonly [key: string]: unknown }
  /** How long the end of the process may wait for the events to be delivered, in milliseconds; 2,000. */
  exitTimeout?: number
  /** The signals that end a command; SIGINT, SIGTERM and SIGHUP. An empty list leaves signals alone. */
  signals?: readonly Signal[]
}

type Signal = 'SIGINT' | 'SIGTERM' | 'SIGHUP'
type Misuse = { exitCode?: number, code?: string }

/**
 * Sends `CLI Command Invoked` before each action of a commander program, and `CLI Command Succeeded` or
 * `CLI Command Failed` after it, with the names of the flags that were used: never their values, nor arguments, nor the
 * text of errors. Call it before `parse` or `parseAsync`.
 *
 * A command ends when its action returns, throws or rejects, at `process.exit()`, with an uncaught error, by a signal
 * that nobody else listens to, or before it begins, where the command line is wrong. Help and versions are no commands.
 * However it ends, the process waits until its events are delivered, up to `exitTimeout`; what was not delivered by
 * then is in the tracker's persistent queue for the next run, where the tracker has one. What the program prints,
 * throws and exits with stays as it is, and nothing that fails in here is seen outside.
 *
 * @returns the program
 *
 * @example
 * await trackCommand(program, tracker, { app: (command) => command.getOptionValue('app') as string }).parseAsync()
 */
export function trackCommand<P extends CommandLike>(program: P, tracker: CommandTracker, options: TrackCommandOptions = {}): P {
  const watch = new CommandWatch(program, tracker, options)
  const command: CommandLike = program
  const { parse, parseAsync } = command
  command.hook('preAction', (_: unknown, action: CommandLike) => watch.begin(action))
  command.hook('postAction', () => watch.succeed())
  command.parse = (...args) => {
    const before = watch.expect()
    try {
      return parse.apply(program, args)
    } catch (error) {
      watch.fail(error, before)
      throw error
    } finally {
      watch.parsed()
    }
  }
  command.parseAsync = async (...args) => {
    const before = watch.expect()
    try {
      return await parseAsync.apply(program, args)
    } catch (error) {
      watch.fail(error, before)
      throw error
    } finally {
      watch.parsed()
      await watch.deliver()
    }
  }
  return program
}

/** A command under way. */
type Run = { readonly command: CommandLike, readonly startedAt: number }

/** Follows a program through its commands, and through the ways that a process ends. Never throws. */
class CommandWatch {
  readonly #program: CommandLike
  readonly #tracker: CommandTracker
  readonly #options: TrackCommandOptions
  readonly #exitTimeout: number
  readonly #signals: readonly Signal[]
  readonly #wrapped = new WeakSet<CommandLike>()
  /** Commands under way: an action may parse another command line. */
  readonly #runs: Run[] = []
  #parsing = 0
  #listening = false
  #misused: { readonly command: CommandLike, readonly error: Misuse } | undefined
  #uncaught: { readonly error: unknown } | undefined
  #interrupted = false
  /** How long the process has waited for deliveries, and since when it waits for one under way. */
  #waited = 0
  #waitingSince: number | undefined

  constructor(program: CommandLike, tracker: CommandTracker, options: TrackCommandOptions) {
    this.#program = program
    this.#tracker = tracker
    this.#options = options
    this.#exitTimeout = options.exitTimeout ?? 2_000
    this.#signals = options.signals ?? ['SIGINT', 'SIGTERM', 'SIGHUP']
  }

  /** Before a command line is read; answers how many commands are under way. */
  expect(): number {
    this.#parsing++
    this.#waited = 0
    this.#misused = this.#uncaught = undefined
    this.#interrupted = false
    quietly(() => this.#listenToMisuse(this.#program))
    if (!this.#listening) {
      this.#listening = true
      process.on('exit', (code) => this.#leave(code))
      process.on('uncaughtExceptionMonitor', (error) => { this.#uncaught = { error } })
    }
    return this.#runs.length
  }

  /** The command line was read; a command may still be under way. */
  parsed(): void {
    this.#parsing--
  }

  begin(command: CommandLike): void {
    this.#runs.push({ command, startedAt: performance.now() })
    if (this.#runs.length === 1) for (const signal of this.#signals) process.prependListener(signal, this.#interrupt)
    quietly(() => {
      const flags = flagsOf(command)
      this.#track('CLI Command Invoked', command, {
        command_path: pathOf(command),
        flags: flags.join(','),
        flags_count: flags.length,
        positional_arg_count: command.args.length,
      })
      // Sent while the action runs: a process that is killed has at least told that it began.
      this.#tracker.flush(this.#exitTimeout).catch(() => {})
    })
  }

  /** An action has come to its end: well, unless it has chosen another exit code. */
  succeed(): void {
    this.#end(Number(process.exitCode ?? 0))
    void this.deliver()
  }

  /** Reading a command line, or an action of it, has thrown. */
  fail(error: unknown, before: number): void {
    const exitCode = exitCodeOf(error)
    if (this.#runs.length > before || exitCode !== 0) this.#end(exitCode, commandErrorCategory(error), before)
    void this.deliver()
  }

  /** Waits for what was sent, no longer than the exit may. */
  async deliver(): Promise<void> {
    const time = this.#timeLeft()
    if (time <= 0) return
    const since = performance.now()
    this.#waitingSince ??= since
    let timer: ReturnType<typeof setTimeout> | undefined
    const timeout = new Promise((resolve) => { timer = setTimeout(resolve, time) })
    await Promise.race([tryTo(() => this.#tracker.flush(time)), timeout]).catch(() => {})
    clearTimeout(timer)
    if (this.#waitingSince === since) {
      this.#waited += performance.now() - since
      this.#waitingSince = undefined
    }
  }

  /** Ends the command that began last; or tells of one that never began. */
  #end(exitCode: number, category: CommandErrorCategory = 'unknown', before = 0): void {
    const run = this.#runs.length > before ? this.#runs.pop() : undefined
    if (this.#runs.length === 0) for (const signal of this.#signals) process.off(signal, this.#interrupt)
    quietly(() => {
      const command = run?.command ?? this.#misused?.command
      const tags = {
        command_path: command ? pathOf(command) : 'unknown',
        ...(run ? { duration_ms: Math.round(performance.now() - run.startedAt) } : {}),
      }
      if (exitCode === 0) this.#track('CLI Command Succeeded', command, tags)
      else this.#track('CLI Command Failed', command, { ...tags, error_category: category, exit_code: exitCode })
    })
    this.#misused = undefined
  }

  /** The process exits: nothing can be awaited any more, and what happened must be told from the exit code. */
  #leave(code: number): void {
    if (this.#runs.length === 0 && this.#parsing > 0 && code !== 0) this.#end(code, this.#category())
    while (this.#runs.length > 0) this.#end(code, this.#category())
    this.#deliverSync()
  }

  // First of all listeners and gone at once, so that the others, which may count each other, do as they would without.
  readonly #interrupt = (signal: NodeJS.Signals): void => {
    for (const each of this.#signals) process.off(each, this.#interrupt)
    this.#interrupted = true
    if (process.listenerCount(signal) > 0) return
    while (this.#runs.length > 0) this.#end(exitCodeOfSignal(signal), 'interrupted')
    this.#deliverSync()
    process.kill(process.pid, signal)
  }

  #category(): CommandErrorCategory {
    if (this.#uncaught) return commandErrorCategory(this.#uncaught.error)
    if (this.#interrupted) return 'interrupted'
    return this.#misused ? commandErrorCategory(this.#misused.error) : 'unknown'
  }

  #deliverSync(): void {
    const until = performance.now() + this.#timeLeft()
    quietly(() => this.#tracker.flushSync?.((url, init) => {
      const time = until - performance.now()
      return time > 0 ? postSync(url, init, time) : undefined
    }))
  }

  #timeLeft(): number {
    const waiting = this.#waitingSince === undefined ? 0 : performance.now() - this.#waitingSince
    return this.#exitTimeout - this.#waited - waiting
  }

  /** A wrong command line ends in `error` or `help` of the command it was meant for, which throw or exit. */
  #listenToMisuse(command: CommandLike): void {
    command.commands.forEach((each) => this.#listenToMisuse(each))
    if (this.#wrapped.has(command)) return
    this.#wrapped.add(command)
    const { error, help } = command
    command.error = (message, misuse = {}) => {
      this.#misused = { command, error: { code: 'commander.error', ...misuse } }
      return error.call(command, message, misuse)
    }
    command.help = (context?: { error?: boolean }) => {
      if (context?.error) this.#misused = { command, error: { code: 'commander.help' } }
      return help.call(command, context as never)
    }
  }

  #track(event: keyof typeof commandEvents, command: CommandLike | undefined, tags: object): void {
    const { channel, icon } = commandEvents[event]
    const { version = this.#program.version(), app, org, context } = this.#options
    const tell = (what: typeof app) => typeof what === 'function' ? command && tryTo(() => what(command)) : what
    const options = { channel, icon, app: tell(app), org: tell(org), tags, context: { ...invocationContext(version), ...context } }
    this.#tracker.track(event, options as never)
  }
}

/** The names of a command and those above it, without the program's own, unless there is nothing else. */
function pathOf(command: CommandLike): string {
  const names = lineage(command).map((each) => each.name()).reverse()
  return (names.length > 1 ? names.slice(1) : names).join(' ') || 'unknown'
}

/** The names of the flags that were typed, on the command or above it, sorted. */
function flagsOf(command: CommandLike): string[] {
  const flags = lineage(command).flatMap((each) => Object.keys(each.opts())
    .filter((key) => each.getOptionValueSource(key) === 'cli')
    .map((key) => flagOf(each, key)))
  return [...new Set(flags)].sort()
}

function flagOf(command: CommandLike, key: string): string {
  const negated = command.getOptionValue(key) === false
  const options = command.options.filter((option) => option.attributeName() === key)
  const option = options.find(({ negate }) => negate === negated) ?? options[0]
  return (option?.long ?? option?.short ?? key).replace(/^-+/, '')
}

function lineage(command: CommandLike): CommandLike[] {
  return command.parent ? [command, ...lineage(command.parent)] : [command]
}

function exitCodeOf(error: unknown): number {
  const exitCode = tryTo(() => (error as { exitCode?: unknown }).exitCode)
  return Number.isInteger(exitCode) ? exitCode as number : 1
}

// As shells tell it.
function exitCodeOfSignal(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal]
}

function tryTo<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch {
    return undefined
  }
}

// Telemetry never breaks its host.
function quietly(work: () => void): void {
  tryTo(work)
}
