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
    let line = pretty ? forPeople(entry) : JSON.stringify(entry)
    for (const secret of secrets) line = line.replaceAll(secret, '***')
    write(line.replace(unseen, escaped))
  }
  const hide = (texts: Iterable<string | undefined>) => {
    for (const text of texts) {
      if (text !== undefined && text.length >= 6) for (const form of [text, JSON.stringify(text).slice(1, -1), encodeURIComponent(text)]) secrets.add(form)
    }
  }
  return Object.assign(log, { hide })
}

// What others wrote may not move the cursor of a terminal.
const unseen = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g
const escaped = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`

function forPeople({ time, level, message, ...fields }: { time: string, level: Level, message: string }): string {
  const facts = Object.entries(fields).filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
  return [time.slice(11, 23), level === 'info' ? '' : `${level.toUpperCase()} `, message, facts.length > 0 ? `  ${facts.join(' ')}` : '']
    .join(' ').replace(/ {2,}(?=\S)/g, (gap) => gap.length > 2 ? '  ' : ' ')
}
