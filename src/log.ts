import { redact } from './secrets.ts'
import { jsonLine, visible } from './terminal.ts'

/** How much it matters. */
export type Level = 'debug' | 'info' | 'warn' | 'error'

/** Tells what happens: a sentence, and the facts. */
export type Log = {
  (level: Level, message: string, fields?: Record<string, unknown>): void
  /** Keeps texts out of everything that is told. */
  hide(secrets: Iterable<string | undefined>): void
}

export type LogOptions = {
  /** Takes a line. */
  write(line: string): void
  /** Lines for people, instead of JSON. */
  pretty?: boolean
  /** Also what only matters where something is wrong. */
  verbose?: boolean
  now?(): Date
}

/**
 * Makes a log: `{"time": "2026-11-05T09:30:00.123Z", "level": "info", "message": "delivered", "sink": "posthog", …}`,
 * one a line. No line holds a secret that it was told to hide.
 */
export function createLog({ write, pretty = false, verbose = false, now = () => new Date() }: LogOptions): Log {
  const secrets = new Set<string>()
  const log = (level: Level, message: string, fields: Record<string, unknown> = {}) => {
    if (level === 'debug' && !verbose) return
    const entry = { time: now().toISOString(), level, message, ...fields }
    write(redact(pretty ? visible(forPeople(entry)) : jsonLine(entry), secrets))
  }
  const hide = (texts: Iterable<string | undefined>) => {
    for (const text of texts) if (text !== undefined) secrets.add(text)
  }
  return Object.assign(log, { hide })
}

function forPeople({ time, level, message, ...fields }: { time: string, level: Level, message: string }): string {
  const facts = Object.entries(fields).filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
  const said = level === 'info' ? message : `${level.toUpperCase()} ${message}`
  return [time.slice(11, 23), said, ...facts.length > 0 ? [` ${facts.join(' ')}`] : []].join(' ')
}
