import { InvalidArgumentError, type Command } from 'commander'
import type { Terminal } from './terminal.ts'

/** What every command is given. */
export type Cli = {
  readonly environment: NodeJS.ProcessEnv
  readonly terminal: Terminal
  /** Aborts at Ctrl-C, or where the system asks the process to end. */
  readonly interrupted: AbortSignal
}

/** The flags that every command has. */
export type CommonOptions = { debug?: boolean, json?: boolean }

/** Where the API is and who calls, as flags; what is secret comes from the environment alone. */
export type ApiOptions = CommonOptions & { url?: string, publishableKey?: string, email?: string }

/** Adds the flags that say where the API is and who calls. */
export function withApi(command: Command): Command {
  return withCommon(command)
    .option('--url <url>', 'the project, such as https://abc.supabase.co '
      + '(default: ACTORSCOPE_URL, SUPABASE_URL, or the local stack)')
    .option('--publishable-key <key>', 'its publishable key '
      + '(default: ACTORSCOPE_PUBLISHABLE_KEY, or the local stack\'s)')
    .option('--email <email>', 'sign in as somebody (default: ACTORSCOPE_EMAIL); '
      + 'the password is ACTORSCOPE_PASSWORD, or asked for')
}

/** Adds the flags that every command has. */
export function withCommon(command: Command): Command {
  return command
    .option('--json', 'print JSON, one object a line')
    .option('--debug', 'show where in the code an error comes from')
}

/** Reads `10m`, `90s`, `2h`, `3d`, `1w`, `250ms`; answers milliseconds. */
export function duration(text: string): number {
  const [, amount, unit = ''] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d|w)$/.exec(text) ?? []
  if (amount === undefined) throw new InvalidArgumentError('It is a number and ms, s, m, h, d or w, such as 10m.')
  return Number(amount) * ({ ms: 1, s: 1e3, m: 60e3, h: 3600e3, d: 86_400e3, w: 7 * 86_400e3 }[unit] ?? 1)
}

const units = { ms: 'milliseconds', s: 'seconds', m: 'minutes', h: 'hours', d: 'days', w: 'weeks' }

/** Reads what `duration` reads; answers it as an interval of Postgres, such as `10 minutes`. */
export function interval(text: string): string {
  duration(text)
  return text.replace(/[a-z]+$/, (unit) => ` ${units[unit as keyof typeof units]}`)
}

/** Reads a whole number between two others. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (/^\d+$/.test(text) && value >= least && value <= most) return value
    throw new InvalidArgumentError(`It is a whole number from ${least} to ${most}.`)
  }
}

/** Reads a UUID. */
export function uuid(text: string): string {
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return text.toLowerCase()
  throw new InvalidArgumentError('It is no UUID.')
}

/** Reads an ISO 8601 time; a day alone begins in UTC. */
export function isoTime(text: string): Date {
  const [, year, month, day] = /^(\d{4})-(\d\d)-(\d\d)(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?$/.exec(text) ?? []
  const time = new Date(year === undefined ? NaN : text)
  const isOfTheCalendar = Number(day) <= new Date(Date.UTC(Number(year), Number(month), 0)).getUTCDate() // where Date goes on counting
  if (isOfTheCalendar && !Number.isNaN(time.getTime())) return time
  throw new InvalidArgumentError('It is no ISO 8601 time, such as 2026-11-05T09:30:00Z.')
}

/** Reads a time: ISO 8601, or how far it is from now, `ago` (-1) or ahead (1). */
export function timeFromNow(direction: -1 | 1): (text: string) => Date {
  return (text) => {
    if (/^\d{4}-/.test(text)) return isoTime(text)
    const time = new Date(Date.now() + direction * duration(text))
    if (time.getUTCFullYear() >= 1 && time.getUTCFullYear() <= 9999) return time
    throw new InvalidArgumentError('It is too far away.')
  }
}

const DAY = 86_400_000

/** Reads a time as `timeFromNow` does, but days and weeks ago begin with a day, in UTC: nobody asks for a part of one. */
export function periodAgo(text: string): Date {
  const time = timeFromNow(-1)(text)
  return /^[\d.]+[dw]$/.test(text) ? new Date(Math.floor(time.getTime() / DAY) * DAY) : time
}

/** Properties by name, as they are collected from repeated flags. */
export type Properties = Record<string, unknown>

/** Collects `name=text` and `name:=json`. */
export function property(text: string, before: Properties = {}): Properties {
  const [, name, json, value = ''] = /^([^=]+?)(:?)=([^]*)$/.exec(text) ?? []
  if (name === undefined) throw new InvalidArgumentError('It is name=text, or name:=json for another type.')
  // fromEntries, since a property may be called __proto__.
  return Object.fromEntries([...Object.entries(before), [name, json ? parseJson(value) : value]])
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new InvalidArgumentError('What follows := is no JSON. For a text, leave the colon out.')
  }
}

/** Examples, as they stand at the end of a command's help. */
export function examples(text: string): string {
  return `\nExamples:\n${text.trim().replace(/^/gm, '  ')}\n`
}
