import { drain } from '../src/delivery.ts'
import { openPool } from '../src/pool.ts'
import type { Sink } from '../src/sink.ts'
import { openSink } from '../src/sinks.ts'
import type { Drainer } from './delivery.ts'

// Drains a backlog in a process of its own, as soon as it is told to.

const batchSize = 500
const [drainer, databaseUrl, url, sinks] = process.argv.slice(2) as [Drainer, string, string, string]

const go = new Promise<void>((begin) => process.once('message', () => begin()))
process.on('disconnect', () => process.exit())

/** Posts events in one request. */
async function post(events: unknown[]): Promise<void> {
  const response = await fetch(url, { method: 'POST', headers: { 'x-events': String(events.length) }, body: JSON.stringify(events) })
  await response.text()
  if (!response.ok) throw new Error(`The receiver answered ${response.status}.`)
}

async function drainSinks(): Promise<void> {
  const sql = openPool(databaseUrl, { max: 8 })
  await sql`select`
  process.send!({ is: 'ready' })
  await go
  const never = new AbortController().signal
  const raw: Sink = { maxBatch: batchSize, send: async (events) => { await post(events); return [] } }
  const open = (batch: Parameters<typeof openSink>[0]) => drainer === 'actorscope' ? raw
    : openSink({ ...batch, settings: { host: url } }, { secret: () => 'phc_bench', fetch, sql, log() {} })
  await Promise.all(Array.from({ length: Number(sinks) }, async (_, n) => {
    for (;;) {
      await drain({ sql, worker: 'bench', batchSize, open }, `sink_${n + 1}`, { closing: never, hurrying: never, leaving: never })
      await new Promise((done) => setTimeout(done, 200))
    }
  }))
}

async function drainGraphile(): Promise<void> {
  const { run, runMigrations } = await import('graphile-worker')
  await runMigrations({ connectionString: databaseUrl })
  process.send!({ is: 'ready' })
  await go
  const isBatched = drainer === 'graphile-batched'
  const deliver = isBatched ? inBatches() : (payload: unknown) => post([payload])
  await run({
    connectionString: databaseUrl, taskList: { deliver }, noHandleSignals: true,
    logger: new (await import('graphile-worker')).Logger(() => () => {}),
    ...isBatched && { preset: { worker: { concurrentJobs: batchSize, maxPoolSize: 10, localQueue: { size: batchSize }, completeJobBatchDelay: 0 } } },
  })
}

/** Gathers what many handlers have at one time, and posts it together. */
function inBatches(): (payload: unknown) => Promise<void> {
  let waiting: unknown[] = []
  let sent: Promise<void> | undefined
  return (payload) => {
    waiting.push(payload)
    return sent ??= new Promise<void>((done) => setImmediate(done)).then(() => {
      const batch = waiting
      waiting = []
      sent = undefined
      return post(batch)
    })
  }
}

async function drainBoss(): Promise<void> {
  const { default: PgBoss } = await import('pg-boss')
  const boss = new PgBoss({ connectionString: databaseUrl, supervise: false, schedule: false })
  boss.on('error', (error) => console.error(error))
  await boss.start()
  await boss.createQueue('deliver')
  process.send!({ is: 'ready' })
  await go
  // It looks for jobs every half a second at most, and at once only where it is asked: so it is asked again and again.
  for (;;) {
    const jobs = await boss.fetch('deliver', { batchSize })
    if (!jobs || jobs.length === 0) {
      await new Promise((done) => setTimeout(done, 200))
      continue
    }
    await post(jobs.map(({ data }) => data))
    await boss.complete('deliver', jobs.map(({ id }) => id))
  }
}

const drainers: Record<Drainer, () => Promise<void>> = {
  'actorscope': drainSinks, 'actorscope-posthog': drainSinks, 'graphile-batched': drainGraphile, 'graphile-default': drainGraphile, 'pg-boss': drainBoss,
}
await drainers[drainer]()
