import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Sql } from 'postgres'
import { createLog, type Log } from './log.ts'
import { runWorker } from './worker.ts'

/** The sink of the local stack: a file of JSON lines. */
const sink = 'file'

/**
 * Makes the sink that writes the log to a file, from its beginning, unless the database has one of that name. A file
 * that is elsewhere since the last start is written there.
 */
export async function keepFileSink(sql: Sql, path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  const settings = JSON.stringify({ path })
  const [known] = await sql`update tracking.sinks set settings = ${settings}::text::jsonb where name = ${sink} returning name`
  if (!known) {
    await sql`select tracking.create_sink(${sink}, 'ndjson', ${settings}::text::jsonb, from_beginning => true)`
  }
}

/**
 * Starts a worker in this process: it delivers to that file, and to whatever sinks are made meanwhile. Their secrets
 * come from the environment.
 *
 * @param warn told of what goes wrong, a line each
 * @returns what ends it, when the batch that is under way is delivered
 */
export function startLocalWorker(databaseUrl: string, warn: (line: string) => void): () => Promise<void> {
  const closing = new AbortController()
  const worker = runWorker({
    databaseUrl, environment: process.env, log: warningsOnly(createLog({ write: warn, pretty: true })),
    closing: closing.signal,
  })
  return async () => {
    closing.abort()
    await worker
  }
}

function warningsOnly(log: Log): Log {
  const tell: Log = Object.assign((...[level, ...rest]: Parameters<Log>) => {
    if (level === 'warn' || level === 'error') log(level, ...rest)
  }, { hide: log.hide })
  return tell
}
