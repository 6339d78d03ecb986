import { Agent, request, type IncomingMessage } from 'node:http'
import { drain, readSinks, type Courier } from '../src/delivery.ts'
import { createLog } from '../src/log.ts'
import { openPool } from '../src/pool.ts'
import type { LoggedEvent, Sink } from '../src/sink.ts'
import { runWorker } from '../src/worker.ts'
import { batchSize } from './backlog.ts'

// Drains a backlog in a process of its own, as soon as it is told to.

/** What drains a backlog: this package with a sink that does nothing but post, and with PostHog's; and job queues. */
export type Drainer = 'actorscope' | 'actorscope-posthog' | 'graphile-batched' | 'graphile-default' | 'pg-boss'

const agent = new Agent({ keepAlive: true })

/** Posts events in one request, as a list of JSON; connections are kept. */
function post(url: string, body: string | Buffer): Promise<void> {
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
  return new Promise((done, fail) => {
    const hear = (response: IncomingMessage) => response.resume().once('end', () => {
      if (response.statusCode === 200) done()
      else fail(new Error(`The receiver answered ${response.statusCode}.`))
    })
    request(url, { method: 'POST', agent, headers }, hear).once('error', fail).end(body)
  })
}

/** Says that all is ready, and waits to be told to begin. */
async function told(): Promise<void> {
  const begin = new Promise((done) => process.once('message', done))
  process.send!({ is: 'ready' })
  await begin
}

const never = new AbortController().signal

// What the worker does for each sink, with a sink of one's own.
async function drainSinks(databaseUrl: string, url: string): Promise<void> {
  const sql = openPool(databaseUrl, { max: 8 })
  const sinks = await readSinks(sql)
  await told()
  const ending = { closing: never, hurrying: never, leaving: never }
  await Promise.all(sinks.flatMap(({ name, shards }) => {
    const send: Sink['send'] = async (events) => { await post(`${url}/${name}`, toList(events)); return [] }
    const courier: Courier = { sql, worker: 'bench', batchSize, open: () => ({ maxBatch: batchSize, send }) }
    return Array.from({ length: shards }, () => drain(courier, name, ending))
  }))
}

/** Events as they come from the database: who hands them on need not read them. */
function toList(events: LoggedEvent[]): Buffer {
  const [open, comma, close] = ['[', ',', ']'].map((text) => Buffer.from(text)) as [Buffer, Buffer, Buffer]
  return Buffer.concat([...events.flatMap(({ json }, n) => [n === 0 ? open : comma, json]), close])
}

// The worker as it is run, but for its jobs besides delivering: it hears that there are sinks.
async function runWholeWorker(databaseUrl: string): Promise<void> {
  const sql = openPool(databaseUrl, { max: 1 })
  await sql`update tracking.sinks set enabled = false`
  const environment = { POSTHOG_API_KEY: 'phc_bench' }
  const log = createLog({ write() {} })
  await new Promise<void>((started) => {
    void runWorker({ databaseUrl, environment, log, batchSize, jobs: false, closing: never, started: () => started() })
  })
  await told()
  await sql`update tracking.sinks set enabled = true`
}

// Batching as graphile-worker's page on performance has it. There is room for the jobs of two requests, so that one is
// sent while others are fetched and booked: of the sizes tried, none was quicker.
const concurrentJobs = 2 * batchSize
const localQueue = { size: concurrentJobs + 1 }
const batching = { concurrentJobs, maxPoolSize: 25, localQueue, completeJobBatchDelay: 0, failJobBatchDelay: 0 }

async function drainGraphile(databaseUrl: string, url: string, isBatched: boolean): Promise<void> {
  const { Logger, run, runMigrations } = await import('graphile-worker')
  await runMigrations({ connectionString: databaseUrl })
  await told()
  const send = (jobs: unknown[]) => post(`${url}/jobs`, JSON.stringify(jobs))
  await run({
    connectionString: databaseUrl, noHandleSignals: true, logger: new Logger(() => () => {}),
    taskList: { deliver: isBatched ? inBatches(send) : (job: unknown) => send([job]) },
    ...isBatched && { preset: { worker: batching } },
  })
}

/** Gathers what many handlers have at one time, and sends it together. */
function inBatches(send: (jobs: unknown[]) => Promise<void>): (job: unknown) => Promise<void> {
  let open: { jobs: unknown[], sent: Promise<void> } | undefined
  const begin = () => {
    const jobs: unknown[] = []
    const gathered = new Promise<void>((done) => setImmediate(done))
    const batch = { jobs, sent: gathered.then(() => { if (open === batch) open = undefined; return send(jobs) }) }
    return batch
  }
  return (job) => {
    const { jobs, sent } = open ??= begin()
    if (jobs.push(job) === batchSize) open = undefined
    return sent
  }
}

// pg-boss's own workers look for jobs twice a second at most; fetching is quicker, and by two at a time quicker still.
const fetchers = 2

async function drainBoss(databaseUrl: string, url: string): Promise<void> {
  const { default: PgBoss } = await import('pg-boss')
  const boss = new PgBoss({ connectionString: databaseUrl, supervise: false, schedule: false })
  boss.on('error', (error) => console.error(error))
  await boss.start()
  await told()
  const fetchJobs = () => boss.fetch('deliver', { batchSize })
  await Promise.all(Array.from({ length: fetchers }, async () => {
    for (let jobs = await fetchJobs(); jobs.length > 0; jobs = await fetchJobs()) {
      await post(`${url}/jobs`, JSON.stringify(jobs.map(({ data }) => data)))
      await boss.complete('deliver', jobs.map(({ id }) => id))
    }
  }))
}

const drainers: Record<Drainer, (databaseUrl: string, url: string) => Promise<void>> = {
  'actorscope': drainSinks,
  'actorscope-posthog': runWholeWorker,
  'graphile-batched': (databaseUrl, url) => drainGraphile(databaseUrl, url, true),
  'graphile-default': (databaseUrl, url) => drainGraphile(databaseUrl, url, false),
  'pg-boss': drainBoss,
}

const [drainer, databaseUrl, url] = process.argv.slice(2) as [Drainer, string, string]
process.on('disconnect', () => process.exit())
await drainers[drainer](databaseUrl, url)
