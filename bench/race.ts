import { spawn, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Sql } from 'postgres'
import { projectDir } from '../src/settings.ts'
import type { Drainer } from './drainer.ts'

/** What is to be brought where, and by whom. */
export type Course = {
  readonly sql: Sql
  readonly drainer: Drainer
  /** The ids that must arrive, at each of so many places. */
  readonly ids: readonly string[]
  readonly places?: number
  /** What is to be done before it can begin, and is not counted but for the seconds that it answers with. */
  prepare(receiverUrl: string): Promise<number>
  /** Whether the database has been told that all is done. */
  isDone(): Promise<boolean>
}

/**
 * Starts a worker and a receiver, each in a process of its own, and measures how long the one takes to bring the events
 * to the other and to have it booked.
 *
 * @returns events a second.
 * @throws {Error} where an event did not arrive, or one that nobody knows did.
 */
export async function race({ sql, drainer, ids, places = 1, prepare, isDone }: Course): Promise<number> {
  const receiver = await startReceiver()
  try {
    const secondsBefore = await prepare(receiver.url)
    const worker = await startDrainer(drainer, sql, receiver.url)
    try {
      const done = receiver.expect(ids.length * places).then(() => until(isDone))
      const started = performance.now()
      worker.go()
      await Promise.race([done, worker.ended, tooLong(drainer)])
      const seconds = (performance.now() - started) / 1000
      compare(drainer, await receiver.report(), ids, places)
      return ids.length * places / (seconds + secondsBefore)
    } finally {
      await worker.stop()
    }
  } finally {
    await receiver.stop()
  }
}

/** What came to each path. */
export type Report = Record<string, { ids: string[], repeats: number }>

function compare(drainer: Drainer, report: Report, ids: readonly string[], places: number): void {
  const expected = new Set(ids)
  const paths = Object.entries(report)
  const isWhole = paths.every(([, { ids }]) => ids.length === expected.size && ids.every((id) => expected.has(id)))
  if (paths.length !== places || !isWhole) throw new Error(`What ${drainer} delivered is not the backlog.`)
  const repeats = paths.reduce((sum, [, { repeats }]) => sum + repeats, 0)
  if (repeats > 0) console.error(`${drainer} delivered ${repeats} events more than once.`)
}

async function until(isTrue: () => Promise<boolean>): Promise<void> {
  while (!await isTrue()) await sleep(2)
}

async function tooLong(drainer: Drainer): Promise<never> {
  await sleep(300_000, undefined, { ref: false })
  throw new Error(`${drainer} does not end.`)
}


// Processes -----------------------------------------------------------------------------------------

type Worker = { go(): void, ended: Promise<never>, stop(): Promise<void> }
type Receiver = { url: string, expect(events: number): Promise<void>, report(): Promise<Report>, stop(): Promise<void> }

/** Starts a worker; it begins when it is told to. */
export async function startDrainer(drainer: Drainer, sql: Sql, url: string): Promise<Worker> {
  const child = startProcess('bench/drainer.ts', [drainer, urlOf(sql), url])
  await heard(child, 'ready')
  const ended = new Promise<never>((_, fail) => child.once('exit', () => fail(new Error(`${drainer} has ended.`))))
  ended.catch(() => {})
  return { go: () => void child.send('go'), ended, stop: () => end(child) }
}

/** How to connect to the database of a connection. */
export function urlOf({ options: { host, port, user, pass, database } }: Sql): string {
  return `postgres://${user}:${String(pass)}@${host[0]}:${port[0]}/${database}`
}

/** Starts a receiver. */
export async function startReceiver(): Promise<Receiver> {
  const child = startProcess('bench/receiver.ts', [])
  const { port } = await heard<{ port: number }>(child, 'ready')
  return {
    url: `http://127.0.0.1:${port}`,
    expect: async (events) => { child.send({ expect: events }); await heard(child, 'arrived') },
    report: async () => { child.send({}); return (await heard<{ report: Report }>(child, 'report')).report },
    stop: () => end(child),
  }
}

function startProcess(script: string, args: string[]): ChildProcess {
  // NO_LOG_SUCCESS: graphile-worker need not tell of each job.
  const env = { ...process.env, NODE_ENV: 'production', NO_LOG_SUCCESS: '1' }
  return spawn(process.execPath, ['--import', 'tsx', join(projectDir, script), ...args], {
    cwd: projectDir, stdio: ['ignore', 'ignore', 'inherit', 'ipc'], env,
  })
}

function heard<T>(child: ChildProcess, what: string): Promise<T> {
  return new Promise((done, fail) => {
    const listen = (message: { is: string } & T) => {
      if (message.is !== what) return
      child.off('message', listen)
      done(message)
    }
    child.on('message', listen)
    child.once('exit', (code) => fail(new Error(`A process has ended with ${code}.`)))
  })
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return
  const ended = new Promise((done) => child.once('exit', done))
  child.kill('SIGKILL')
  await ended
}
