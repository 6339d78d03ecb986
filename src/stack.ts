import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { startApi, type Api } from './api.ts'
import {
  admitApi, connect, demoOf, inspectDatabase, localPassword, migrate, noteChapters, refuseOutdated, seedOnce, standIn,
} from './database.ts'
import { keepFileSink, startLocalWorker } from './local-worker.ts'
import { startPostgres } from './postgres.ts'
import type { Settings } from './settings.ts'

/** The running local stack. */
export type Stack = {
  /** The database, as its owner. */
  readonly databaseUrl: string
  /** The Data and Auth API; a real Supabase has its own, and none is started for it. */
  readonly api?: Api
  /** The file that a worker delivers the log to, a row of public.events as JSON a line. */
  readonly eventsFile?: string
  /** Resolves when the database server is gone though nobody stopped the stack; never, where it is not the stack's. */
  readonly lost: Promise<void>
  /** Ends everything that was started, in order. */
  stop(): Promise<void>
}

/** Told what is under way, in a few words: "Postgres 17 on 54322". */
export type Report = (step: string) => void

/**
 * Starts the local stack: Postgres, the chapters, the demo world, the Data and Auth API, a worker. What was started
 * is stopped again where a later part fails, or where `signal` says to give up.
 *
 * @throws {StackError} when something is in the way; see its codes.
 */
export async function startStack(settings: Settings, report: Report, signal?: AbortSignal): Promise<Stack> {
  const stops: (() => Promise<void>)[] = []
  const stop = async () => {
    for (const end of stops.splice(0).reverse()) await end()
  }
  const step = (name: string) => {
    signal?.throwIfAborted()
    report(name)
  }
  try {
    return { ...(await build(settings, step, stops)), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function build(settings: Settings, step: Report, stops: (() => Promise<void>)[]): Promise<Omit<Stack, 'stop'>> {
  const { databaseUrl, lost } = await openDatabase(settings, step, stops)
  const sql = connect(databaseUrl, { max: 1 })
  stops.push(() => sql.end())
  const { isSupabase } = await inspectDatabase(sql)
  if (!isSupabase) {
    await refuseOutdated(sql)
    await standIn(sql, settings.databaseUrl ? undefined : localPassword)
  }
  step('the chapters')
  await migrate(databaseUrl)
  if (isSupabase) return { databaseUrl, lost }
  await noteChapters(sql)
  step('the demo world')
  await seedOnce(sql, settings.hasPast)
  step(`the Data and Auth API, and the dashboard, on ${settings.apiPort}`)
  const apiUrl = await admitApi(sql, databaseUrl, settings.databaseUrl ? randomUUID() : localPassword)
  const api = await startApi({ port: settings.apiPort, portVariable: 'ACTORSCOPE_API_PORT', databaseUrl: apiUrl, demo: await demoOf(sql) })
  stops.push(() => api.stop())
  const eventsFile = join(settings.dataDir, 'events.ndjson')
  step(`a worker, which delivers to ${eventsFile}`)
  await keepFileSink(sql, eventsFile)
  stops.push(startLocalWorker(databaseUrl, step))
  return { databaseUrl, lost, api, eventsFile }
}

async function openDatabase(settings: Settings, step: Report, stops: (() => Promise<void>)[]) {
  if (settings.databaseUrl) return { databaseUrl: settings.databaseUrl, lost: new Promise<void>(() => {}) }
  step(`Postgres 17 on ${settings.databasePort}`)
  const server = await startPostgres({
    port: settings.databasePort, portVariable: 'ACTORSCOPE_DB_PORT', dataDir: settings.dataDir })
  stops.push(() => server.stop())
  return {
    databaseUrl: `postgres://postgres:${localPassword}@127.0.0.1:${settings.databasePort}/postgres`,
    lost: server.exited,
  }
}
