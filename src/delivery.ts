import type { Sql } from 'postgres'
import { Lease, leaseBatch, Progress, type Batch, type Lessee } from './lease.ts'
import { SinkError, type LoggedEvent, type Sink, type Undelivered } from './sink.ts'

// The core of delivery: a batch is leased, sent, and completed or failed. What is next, who may have it, when it is
// tried again and what counts as delivered is for the database to say (chapter 7); this sends, and finds the events
// that a sink will not have. It runs in Node and in Deno.

/** Who delivers, and with what. */
export type Courier = Lessee & {
  /** Makes the sink of a batch; what it throws fails the batch. */
  open(batch: Batch): Sink | Promise<Sink>
  /** How long one batch may take before the rest of it is handed on; default 120. */
  readonly batchSeconds?: number
}

/**
 * What became of a batch: `delivered`, all of it was taken, or refused for good; `failed`, it will be tried again;
 * `interrupted`, it was time to end, or took too long; `lost`, somebody else has it, since the lease ended. Of all but
 * the first, a part at its beginning may have been delivered, and counts.
 */
export type Outcome = {
  result: 'delivered' | 'failed' | 'interrupted' | 'lost'
  /** Events that the sink took. */
  delivered: number
  /** Events that it refused for good. */
  undelivered: number
  /** How long they were under way. */
  seconds: number
  /** Why it failed, and when it is tried again. */
  error?: string
  retryAt?: Date
}

/** A sink that is delivered to, and how many batches of it may be under way at once. */
export type EnabledSink = { name: string, shards: number }

/** Reads which sinks there are to deliver to. */
export async function readSinks(sql: Sql): Promise<EnabledSink[]> {
  return sql<EnabledSink[]>`
    select s.name, count(*)::integer as shards
    from   tracking.sinks as s
    join   tracking.cursors as c on c.sink = s.name
    where  s.enabled
    group  by s.name
    order  by s.name`
}

/** How delivery comes to an end: each stage is reached at its time, and the batch that is under way may end before. */
export type Ending = {
  /** No batch is begun any more. */
  readonly closing: AbortSignal
  /** No request is begun any more: what was sent of a batch counts, and the rest is handed on. */
  readonly hurrying: AbortSignal
  /** The request that is under way is given up. */
  readonly leaving: AbortSignal
}

/** The ending of delivery that is closed from without, and is then over within so many seconds. */
export function endWithin(seconds: number, closing: AbortSignal): Ending {
  const after = (share: number) => {
    const controller = new AbortController()
    const wait = () => void setTimeout(() => controller.abort(), seconds * share * 1000)
    if (closing.aborted) wait()
    else closing.addEventListener('abort', wait, { once: true })
    return controller.signal
  }
  return { closing, hurrying: after(0.5), leaving: after(0.7) }
}

/** Who watches batches come and go. */
export type Watcher = { begun?(batch: Batch): void, ended?(outcome: Outcome, batch: Batch): void }

/**
 * Delivers what a sink has before it, a batch at a time, until there is nothing to do or it is time to end.
 *
 * @throws what the database says; a batch that was under way is then leased until its time is up.
 */
export async function drain(courier: Courier, sink: string, ending: Ending, watcher: Watcher = {}): Promise<void> {
  while (!ending.closing.aborted) {
    const batch = await leaseBatch(courier, sink)
    if (!batch) return
    await deliver(batch, { courier, ending, watcher })
  }
}

/**
 * Leases the next batch of a sink and delivers it, and no other.
 *
 * @returns what became of it; undefined where there was nothing to do.
 */
export async function deliverOnce(courier: Courier, sink: string, ending: Ending): Promise<Outcome | undefined> {
  const batch = await leaseBatch(courier, sink)
  let outcome: Outcome | undefined
  const watcher: Watcher = { ended: (ended) => { outcome = ended } }
  if (batch) await deliver(batch, { courier, watcher, ending: { ...ending, closing: AbortSignal.abort() } })
  return outcome
}

/**
 * Sends events outside of any batch: in order, each to be told apart from the others.
 *
 * @returns how far it came, all of them unless it was time to end or the sink is out of order; and why, where it is.
 */
export async function resend(
  batch: Batch, open: Courier['open'], ending: Ending,
): Promise<{ progress: Progress, error?: unknown }> {
  const progress = new Progress({ ...batch, failures: patience })
  const stops = new Stops([ending.closing], [ending.leaving], Infinity)
  try {
    await sendAll(open, progress, stops)
    return { progress }
  } catch (error) {
    return { progress, error: stops.isToldTo ? undefined : error }
  } finally {
    stops.clear()
  }
}

type Round = { courier: Courier, ending: Ending, watcher: Watcher }

/** Delivers a batch and those behind it. While one is sent, the database books the one before and reads the next. */
async function deliver(first: Batch, { courier, ending, watcher }: Round): Promise<void> {
  const lease = new Lease(courier, first)
  const isOpen = () => !ending.closing.aborted
  let reading = quietly(first.more && isOpen() ? lease.readAhead(first) : Promise.resolve(undefined))
  try {
    for (let batch: Batch | undefined = first; batch;) {
      watcher.begun?.(batch)
      const started = performance.now()
      const progress = lease.begin(batch)
      const report = (end: End) => {
        const { delivered, undelivered: { length: undelivered } } = progress
        const seconds = (performance.now() - started) / 1000
        watcher.ended?.({ delivered, undelivered, seconds, ...end }, progress.batch)
      }
      const unsent = await send(courier, ending, lease, progress)
      if (unsent) return report(await unsent())
      const ahead: Batch | undefined = await reading
      reading = quietly(lease.complete(progress, ahead, Boolean(ahead?.more) && isOpen()).then((booked) => {
        report({ result: booked.isDone ? 'delivered' : 'lost' })
        return booked.ahead
      }))
      batch = isOpen() ? ahead : undefined
      if (ahead && !batch) await lease.release(lease.begin(ahead))
    }
    await reading
  } finally {
    await lease.close()
  }
}

type End = Pick<Outcome, 'result' | 'error' | 'retryAt'>

/** A promise that is waited for later, if at all. */
function quietly<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}


// Sending -------------------------------------------------------------------------------------------

/**
 * Sends a batch.
 *
 * @returns undefined when all of it is done with; else what is to be done about the rest.
 */
async function send(
  courier: Courier, ending: Ending, lease: Lease, progress: Progress,
): Promise<(() => Promise<End>) | undefined> {
  const stops = new Stops([ending.hurrying], [ending.leaving, lease.lost], courier.batchSeconds ?? 120)
  try {
    await sendAll(courier.open, progress, stops)
    return undefined
  } catch (error) {
    if (lease.lost.aborted) return async () => ({ result: 'lost' })
    const isHandedOn = stops.isToldTo || error instanceof OutOfTime
    return () => isHandedOn ? lease.release(progress) : lease.fail(progress, error)
  } finally {
    stops.clear()
  }
}

/** When to stop sending a batch: before the next request, or in the one that is under way. */
class Stops {
  private readonly controller = new AbortController()
  private readonly endsAt: number
  private readonly abort = () => this.controller.abort()

  constructor(private readonly soft: AbortSignal[], private readonly hard: AbortSignal[], seconds: number) {
    this.endsAt = performance.now() + seconds * 1000
    for (const signal of hard) {
      if (signal.aborted) this.abort()
      else signal.addEventListener('abort', this.abort)
    }
  }

  /** Aborts where the request under way is to be given up. */
  get signal(): AbortSignal {
    return this.controller.signal
  }

  /** Whether somebody says so, and no request is to be begun. */
  get isToldTo(): boolean {
    return this.signal.aborted || this.soft.some(({ aborted }) => aborted)
  }

  /** Whether that is so, or the time is up. */
  get isDue(): boolean {
    return this.isToldTo || performance.now() > this.endsAt
  }

  clear(): void {
    for (const signal of this.hard) signal.removeEventListener('abort', this.abort)
  }
}

/** There was no time to begin the next request; none has failed. */
class OutOfTime extends Error {
  override readonly name = 'OutOfTime'
}

async function sendAll(open: Courier['open'], progress: Progress, stops: Stops): Promise<void> {
  const { batch } = progress
  if (batch.events.length === 0) return
  const sink = await open(batch)
  try {
    for (let from = 0; from < batch.events.length; from += sink.maxBatch) {
      await sendSome(sink, batch.events.slice(from, from + sink.maxBatch), progress, stops)
    }
    if (isForbidden(progress, 1)) throw forbidden(progress)
  } finally {
    await sink.close?.()
  }
}

/** Sends events; where there are too many, or one of them is refused, in halves, down to the one that it is. */
async function sendSome(sink: Sink, events: LoggedEvent[], progress: Progress, stops: Stops): Promise<void> {
  try {
    progress.took(events.length, await sendPatiently(sink, events, stops))
  } catch (error) {
    if (!(error instanceof SinkError) || error.kind === 'retry') throw error
    if (events.length === 1) return refuse(error, progress)
    const middle = Math.ceil(events.length / 2)
    await sendSome(sink, events.slice(0, middle), progress, stops)
    await sendSome(sink, events.slice(middle), progress, stops)
  }
}

const tries = 4
const longestPauseMs = 2000
const longestTryMs = 5000

/**
 * Sends events, again where it failed for a moment: a pause in here costs less than one for the whole sink. Who lets
 * requests wait will let the next one wait as well.
 */
async function sendPatiently(sink: Sink, events: LoggedEvent[], stops: Stops): Promise<Undelivered[]> {
  if (stops.isDue) throw new OutOfTime('It was time to stop.')
  for (let attempt = 1; ; attempt++) {
    const begun = performance.now()
    try {
      return await sink.send(events, stops.signal)
    } catch (error) {
      if (!(error instanceof SinkError) || error.kind !== 'retry' || attempt === tries) throw error
      const { retryAfterMs = 0 } = error
      if (retryAfterMs > longestPauseMs || performance.now() - begun > longestTryMs) throw error
      await new Promise((done) => setTimeout(done, Math.max(retryAfterMs, 50 * 2 ** attempt * Math.random())))
      if (stops.isDue) throw error
    }
  }
}

// A vendor that turns everybody away says so of the sink, not of the event. Sinks know most of it, and have the batch
// wait; this is for what they could not know, such as a firewall that answers 403. Where nothing of a batch is taken,
// it waits too, and somebody must look at it; but not for ever, since a batch may really have nothing but bad events.
const forbidding = [401, 402, 403, 404, 405, 407, 410]
const enough = 32
const patience = 20

function refuse(error: SinkError, progress: Progress): void {
  progress.refused(error)
  if (isForbidden(progress, enough)) throw forbidden(progress)
}

function isForbidden({ batch, delivered, undelivered }: Progress, least: number): boolean {
  return delivered === 0 && undelivered.length >= least && batch.failures < patience
    && undelivered.every(({ status }) => status !== undefined && forbidding.includes(status))
}

function forbidden({ undelivered }: Progress): SinkError {
  const error = undelivered[0]?.error
  return new SinkError('retry', `The sink takes no event at all, and somebody must look at it: ${error}`)
}
