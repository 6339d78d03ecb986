import {
  areJobsDone, areSinksDone, batchSize, createSinks, fillLog, installQueues, markEnd, prepareBacklogs, writeBacklog,
  writeJobs, type Backlog, type Queue, type Sinks,
} from './backlog.ts'
import { singleContest } from './contests.ts'
import type { Drainer } from './drainer.ts'
import type { Contender, Contest } from './measure.ts'
import { race, startDrainer, startReceiver, urlOf } from './race.ts'
import type { Ring } from './ring.ts'

// Events of a backlog: enough for some seconds, so that a worker's beginning does not weigh. Where the last takes as long
// as the first, fewer say as much: of one job at a time, and of what goes to four sinks. The job queues have the shorter
// one: of theirs, pg-boss takes the longer over each fetch the more jobs wait.
const longBacklog = 240_000
const backlog = 60_000
const backlogOfSingles = 3000

/**
 * A backlog of many small transactions, drained over local HTTP by one worker to a receiver that answers at once; and
 * the same with job queues that carry one job an event. Those write the jobs besides the events, which counts.
 */
export async function drainContest(ring: Ring, scale: number): Promise<Contest> {
  const sql = await ring.furnish('delivery')
  await prepareBacklogs(sql)
  await installQueues(urlOf(sql))
  const first = await writeBacklog(sql, (longBacklog - backlog) * scale)
  const last = await writeBacklog(sql, backlog * scale)
  const all = { behind: first.behind, ids: [...first.ids, ...last.ids] }
  const own = (name: string, drainer: Drainer, events: Backlog, sinks: Sinks): Contender =>
    ({ name, run: () => raceSinks(sql, drainer, events, sinks) })
  const others = (name: string, drainer: Drainer, queue: Queue, jobs: number): Contender =>
    ({ name, run: () => raceJobs(sql, drainer, queue, all.ids.slice(0, jobs * scale)) })
  return {
    name: `a backlog delivered over HTTP, batches of ${batchSize}`,
    unit: 'events/s',
    isDurable: true,
    isLed: true,
    contenders: [
      own('actorscope, 1 sink', 'actorscope', all, { count: 1 }),
      own('actorscope, 1 sink, two batches at a time', 'actorscope', all, { count: 1, shards: 2 }),
      own('actorscope, 4 sinks', 'actorscope', last, { count: 4 }),
      own('actorscope, PostHog', 'actorscope-posthog', all, { count: 1 }),
      others('graphile-worker, batched', 'graphile-batched', 'graphile-worker', backlog),
      others('graphile-worker, by default', 'graphile-default', 'graphile-worker', backlogOfSingles),
      others('pg-boss, two fetches at a time', 'pg-boss', 'pg-boss', backlog),
    ],
  }
}

/** Draining the end of logs of other lengths. */
export async function flatContest(ring: Ring, lengths: number[], scale: number): Promise<Contest> {
  const contenders: Contender[] = []
  for (const length of lengths) {
    const sql = await ring.furnish(`log_${length}`)
    await prepareBacklogs(sql)
    await fillLog(sql, length)
    const end = await writeBacklog(sql, backlog * scale)
    const name = `behind ${length.toLocaleString('en')} events`
    contenders.push({ name, run: () => raceSinks(sql, 'actorscope', end, { count: 1 }) })
  }
  return { name: 'delivery as the log grows', unit: 'events/s', isDurable: true, contenders }
}

/** Delivers a backlog to each sink. */
function raceSinks(sql: Ring['sql'], drainer: Drainer, events: Backlog, sinks: Sinks): Promise<number> {
  return race({
    sql, drainer, ids: events.ids, places: sinks.count,
    prepare: (url) => createSinks(sql, sinks, events.behind, url).then(() => 0),
    isDone: () => areSinksDone(sql, events),
  })
}

/** Writes a job for each event, and has them done. */
function raceJobs(sql: Ring['sql'], drainer: Drainer, queue: Queue, ids: string[]): Promise<number> {
  const prepare = () => writeJobs(sql, queue, ids.length)
  return race({ sql, drainer, ids, prepare, isDone: () => areJobsDone(sql, queue) })
}

/** What it costs those who send events that there are sinks; the second contender shows what is chance. */
export async function presenceContest(ring: Ring): Promise<Contest> {
  const trackEvent = singleContest(ring).contenders.at(-1)!
  const beside = async (count: number, url = 'http://127.0.0.1:1') => {
    await createSinks(ring.sql, { count }, await markEnd(ring.sql), url)
    return trackEvent.run()
  }
  const besideWorker = async (count: number) => {
    const receiver = await startReceiver()
    const worker = await startDrainer('actorscope-posthog', ring.sql, receiver.url)
    worker.go()
    return beside(count, receiver.url).finally(() => Promise.all([worker.stop(), receiver.stop()]))
  }
  return {
    name: 'track_event beside sinks',
    unit: 'events/s',
    isDurable: true,
    contenders: [
      { name: 'no sinks', run: () => beside(0) },
      { name: 'no sinks, again', run: () => beside(0) },
      { name: '4 sinks', run: () => beside(4) },
      { name: '4 sinks, and a worker on this machine that delivers', run: () => besideWorker(4) },
    ],
  }
}
