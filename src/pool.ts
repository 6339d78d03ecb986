import postgres, { type Sql } from 'postgres'
import { isLocal } from './local.ts'

/** How to connect. */
export type PoolOptions = {
  /** Connections at once, at most; default 5. */
  max?: number
  /** Whether statements are prepared, default true. Not through a pooler that gives transactions other sessions. */
  prepare?: boolean
  /** What the database shows as the name of the connection. */
  name?: string
}

/** Opens connections to the database for something that runs for long: they come back by themselves. */
export function openPool(databaseUrl: string, { max = 5, prepare = true, name = 'actorscope' }: PoolOptions = {}): Sql {
  return postgres(databaseUrl, {
    max, prepare, ...tlsTo(databaseUrl),
    connection: { application_name: name },
    onnotice: () => {},
    connect_timeout: 10,
    backoff: (attempt: number) => Math.min(5, 0.1 * 2 ** attempt),
    // The types of arrays would be asked for behind one's back, and nobody would catch that query's end in a crash.
    fetch_types: false,
    types: Object.fromEntries(Object.entries(arrayTypes).map(([name, oid]) => [name, arrayType(oid)])),
  }) as unknown as Sql
}

/** TLS with a database that is elsewhere and has it, unless its URL says what is wanted. */
export function tlsTo(databaseUrl: string): { ssl?: 'prefer' } {
  return isLocal(databaseUrl) || /[?&]ssl(mode)?=/.test(databaseUrl) ? {} : { ssl: 'prefer' }
}

const arrayTypes = {
  booleans: 1000, smallints: 1005, integers: 1007, texts: 1009, bigints: 1016, timestamps: 1185, uuids: 2951,
}

function arrayType(oid: number) {
  return { to: oid, from: [oid], serialize: toArray, parse: fromArray }
}

/** An array of simple values as Postgres reads it. */
function toArray(values: unknown): string {
  if (!Array.isArray(values)) return String(values)
  // JSON is the same where nothing needs escaping, and is made in a fifth of the time.
  const json = values.every((value) => typeof value === 'string') ? JSON.stringify(values) : '\\'
  if (!json.includes('\\')) return `{${json.slice(1, -1)}}`
  const element = (value: unknown) => value === null || value === undefined ? 'null'
    : `"${(value instanceof Date ? value.toISOString() : String(value)).replace(/["\\]/g, '\\$&')}"`
  return `{${values.map(element).join(',')}}`
}

/** A one-dimensional array as Postgres writes it; its elements stay texts. */
function fromArray(text: string): (string | null)[] {
  const elements: (string | null)[] = []
  for (const [, quoted, plain] of text.slice(1, -1).matchAll(/"((?:[^"\\]|\\.)*)"|([^,]+)/gs)) {
    elements.push(quoted !== undefined ? quoted.replace(/\\(.)/gs, '$1') : plain === 'NULL' ? null : plain!)
  }
  return elements
}
