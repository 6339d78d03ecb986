import postgres, { type Sql } from 'postgres'
import type { ApiOptions, Cli } from './cli-options.ts'
import { readDatabaseUrl } from './cli-settings.ts'
import { isLostConnection } from './lease.ts'
import { tlsTo } from './pool.ts'
import { isStableName, TrackingError } from './tracking-error.ts'

/**
 * Does some work with the database: gives it a connection, or several, and the server and database by name. They are
 * closed then.
 *
 * @throws {TrackingError} `setting_missing`, `setting_invalid`; `connection_failed`, where nothing answers or the login
 *   is refused; `connection_lost`, where it ends amid the work; the database's own codes.
 */
export async function withDatabase<T>(
  cli: Cli, options: ApiOptions, work: (sql: Sql, name: string) => Promise<T>, connections = 1,
): Promise<T> {
  const databaseUrl = readDatabaseUrl(options, cli.environment)
  const sql = postgres(databaseUrl, {
    max: connections, onnotice: () => {}, connect_timeout: 10, connection: { application_name: 'actorscope' },
    prepare: false, // poolers may give each transaction another server
    ...tlsTo(databaseUrl),
  })
  const end = () => void sql.end({ timeout: 0 })
  cli.interrupted.addEventListener('abort', end)
  try {
    await sql`select`.catch((cause: Error) => { throw unreachable(databaseUrl, cause) })
    return await work(sql, nameOf(databaseUrl)).catch((error: unknown) => { throw toTrackingError(error, databaseUrl) })
  } finally {
    cli.interrupted.removeEventListener('abort', end)
    await sql.end({ timeout: 1 })
  }
}

function unreachable(databaseUrl: string, cause: Error & { code?: string }): TrackingError {
  return new TrackingError('connection_failed', {
    details: `The database ${nameOf(databaseUrl)} cannot be reached: ${cause.message || cause.code}.`,
    hint: 'Check DATABASE_URL, and that the database runs.',
    cause,
  })
}

function lost(databaseUrl: string, cause: Error): TrackingError {
  return new TrackingError('connection_lost', {
    details: `The connection to the database ${nameOf(databaseUrl)} ended amid the work: ${cause.message}.`,
    hint: 'Check that the database runs, and run the command again.',
    cause,
  })
}

/** The server and the database, without login and password. */
function nameOf(databaseUrl: string): string {
  const { host, pathname } = new URL(databaseUrl)
  return `${host}${pathname}`
}

/** An error of the database, with the stable name where it has one. */
function toTrackingError(error: unknown, databaseUrl: string): unknown {
  if (isLostConnection(error)) return lost(databaseUrl, error as Error)
  if (!(error instanceof postgres.PostgresError)) return error
  const { code, message, detail, hint } = error
  if (isStableName(message)) return new TrackingError(message, { details: detail, hint, cause: error })
  const details = [message, detail].filter(Boolean).join('. ')
  return new TrackingError(code, { details, hint: hint ?? hints[code], cause: error })
}

const notInstalled = 'Apply the chapters in migrations/; actorscope doctor says which are missing.'
const hints: Record<string, string | undefined> = {
  '22P02': 'Check the ids: they are UUIDs.',
  '3F000': notInstalled,
  '42883': notInstalled,
  '42P01': notInstalled,
  '42501': 'Connect as the owner of the tables, postgres in a Supabase project.',
  '57014': 'It took too long: ask for less, with --since, --org or --app.',
}
