import { errorOf, isComplete, isDatabases, isRefusal, readAnswer, request, type Answer, type Result } from './answer.ts'
import type { KeptEvent, PersistentQueue } from './persistent-queue.ts'
import { later, unfinished, watchPage } from './runtime.ts'
import type { Source, Who } from './source.ts'
import { TrackingError } from './tracking-error.ts'

/** What a request may take, in bytes: gateways refuse bodies of a megabyte or so. */
const MAX_BYTES = 512_000
/** All requests together that outlive their page are granted 64 KiB by the browser. */
const KEEPALIVE_BYTES = 60_000
/** What a request adds to an event, at most: its organization, and when it was sent. */
const ADDED_BYTES = 100
/** How long a process that would end is held up, … */
const EXIT_MS = 10_000
/** … and how long where a persistent queue keeps what it leaves. */
const KEPT_EXIT_MS = 2_000
/** How often an event that somebody waits for is sent. */
const ATTEMPTS = 4
const FOREVER = 2 ** 31 - 1

/** How events are held and sent; `TrackerOptions` says what each means. */
export type OutboxOptions = {
  flushAt?: number
  flushInterval?: number
  maxQueueSize?: number
  maxBatchSize?: number
  groupTimeout?: number
  requestTimeout?: number
  retryDelay?: number
  maxRetryDelay?: number
  fetch?: typeof fetch
  clock?: () => number
  queue?: PersistentQueue
  waitUntil?: (work: Promise<unknown>) => void
  disabled?: boolean
}

/** What the database says of an event that it has. */
export type Recorded = { eventId: string, duplicate: boolean, warnings: string[] }

/** Answers a request while the caller waits; undefined, where there was no answer. */
export type SyncPost = (url: string, init: { headers: Record<string, string>, body: string }) =>
  { status: number, body: string } | undefined

/** Somebody who waits for what becomes of an event. */
export type Waiter = { done(recorded: Recorded): void, failed(error: TrackingError): void }

type Entry = { -readonly [K in keyof KeptEvent]: KeptEvent[K] } & {
  /** Whose it is; undefined, while nobody is there whose it could be. */
  who?: Who
  /** Whose it is, is being asked. */
  asking?: boolean
  /** The bytes it takes in a request, at most. */
  size: number
  waiter?: Waiter
  /** How often it was sent without an answer. */
  attempts: number
  /** It was refused once for its credentials, and there are fresher ones. */
  renewed?: boolean
  /** The request that it is in. */
  sent?: Request
}
type Request = AbortController & { keepalive?: boolean }

export type Outbox = ReturnType<typeof createOutbox>

/**
 * Holds events until the database has them. An event is among `entries` until it was recorded, dropped, or left to
 * the persistent queue. There is one request at a time, but for those of a page that is left.
 */
export function createOutbox(
  source: Source, onError: ((error: TrackingError, event?: any) => void) | undefined,
  {
    flushAt = 20, flushInterval = 5_000, maxQueueSize = 10_000, maxBatchSize = 100, groupTimeout = 30_000,
    requestTimeout = 10_000, retryDelay = 1_000, maxRetryDelay = 30_000, clock = Date.now, queue: store, waitUntil,
    ...options
  }: OutboxOptions,
) {
  // In the order in which they came.
  const entries = new Set<Entry>()
  let isFull = false
  const counts = { tracked: 0, adopted: 0, sent: 0, duplicates: 0, kept: 0, retries: 0 }
  const dropped: Record<string, number> = {}

  // What the host's functions throw, or the promises they return reject with, stays here.
  const guarded = (act: () => unknown): void => { (async () => act())().catch(() => {}) }
  const report = (error: TrackingError, event?: string) => guarded(() => onError?.(error, event && JSON.parse(event)))

  const isReady = ({ who, groupless }: Entry) => who && !groupless
  const isFree = (entry: Entry) => isReady(entry) && !entry.sent
  const free = () => [...entries].filter(isFree)


  // What is held -------------------------------------------------------------------------------------------

  const hold = (event: KeptEvent, who?: Who, waiter?: Waiter): Entry => {
    const size = new TextEncoder().encode(event.text).length + ADDED_BYTES
    const entry: Entry = { ...event, who, size, waiter, attempts: 0 }
    entries.add(entry)
    unfinished.add(beforeExit)
    joinGroup(entry)
    if (entry.groupless) later(groupTimeout, () => {
      if (entry.groupless && entries.has(entry)) drop(entry, new TrackingError('no_group'))
    })
    return entry
  }
  const keep = ({ key, who, text, groupless, waiter }: Entry) => {
    if (!waiter) store?.put({ key, identity: who?.identity ?? '', text, groupless })
  }
  const end = (entry: Entry, how: 'remove' | 'release' = 'remove') => {
    entries.delete(entry)
    entry.sent = undefined
    store?.[how](entry.key)
    if (!entries.size) unfinished.delete(beforeExit)
    tell()
  }
  const countDrop = (code: string) => { dropped[code] = (dropped[code] ?? 0) + 1 }
  const drop = (entry: Entry, error: TrackingError, isTold = true) => {
    end(entry)
    countDrop(error.code)
    if (entry.waiter) entry.waiter.failed(error)
    else if (isTold) report(error, entry.text)
  }
  /** Leaves it in the persistent queue, where there is one. */
  const abandon = (entry: Entry, error: TrackingError) => {
    if (!store || entry.waiter) return drop(entry, error)
    end(entry, 'release')
    counts.kept++
  }

  let group: string | null = null
  // An organization that somebody else has chosen since is not for this one's events.
  const joinGroup = (entry: Entry) => {
    if (!entry.groupless || !group || (entry.who && entry.who.identity !== current?.identity)) return
    entry.text = `${entry.text.slice(0, -1)},"org_id":${JSON.stringify(group)}}`
    entry.groupless = false
  }


  // Whose it is --------------------------------------------------------------------------------------------

  // An event goes out with credentials of whoever was there when it was tracked, never with somebody else's. Where
  // nobody was there yet, it waits for the first who comes.
  let current: Who | undefined
  let isAsked = false

  const arrive = (who: Who) => {
    const isNew = who !== current
    current = who
    if (!who.identity) return
    for (const entry of entries) {
      const isNobodys = !entry.who && !entry.asking
      if (isNobodys || entry.who?.identity === who.identity) entry.who = who
      if (isNobodys) keep(entry)
    }
    if (isNew) adopt()
  }

  const ask = async () => {
    try {
      // Nothing may wait for ever for a session that does not come.
      const who = await Promise.race([source.ask(), new Promise<void>((done) => later(requestTimeout, done))])
      if (who) arrive(who)
    } catch (cause) {
      report(new TrackingError('unauthenticated', { cause }))
    }
    isAsked = true
    for (const entry of entries) {
      if (entry.waiter && !entry.who && !entry.asking) drop(entry, new TrackingError('unauthenticated'))
    }
    tell()
  }

  const identify = (entry: Entry) => {
    let who
    try {
      who = source.now()
    } catch {
      // It is asked again before anything is sent, and complained of there.
    }
    if (!who || !('then' in who)) return who && arrive(who)
    entry.asking = true
    const answered = (who?: Who) => {
      entry.asking = false
      if (who) arrive(who)
      if (entry.waiter || waiters[0]) run() // somebody waits
      tell()
    }
    who.then(answered, () => answered())
  }

  const adopt = () => {
    const who = current
    if (!who?.identity || refusal) return
    for (const event of store?.adopt(who.identity, maxQueueSize - entries.size) ?? []) {
      const entry = hold(event, who)
      if (!event.identity) keep(entry)
      counts.adopted++
      run()
    }
  }


  // Sending ------------------------------------------------------------------------------------------------

  type Timer = ReturnType<typeof setTimeout>
  let isRunning = false
  let timer: Timer | undefined
  let pause: Timer | undefined
  /** The server asked for the pause. */
  let isBidden = false
  let failures = 0
  let limit = maxBatchSize
  store?.open(report)
  /** Why nothing is taken in any more, if so. */
  let refusal = options.disabled || store?.optedOut ? 'opted_out' : undefined

  /** The first events that are free, all of one identity. */
  const cut = (bytes: number, isStrict = false): Entry[] => {
    const batch: Entry[] = []
    for (const entry of free()) {
      if (batch[0] && entry.who!.identity !== batch[0].who!.identity) continue
      bytes -= entry.size
      if (batch.length >= limit || (bytes < 0 && (isStrict || batch[0]))) break
      batch.push(entry)
    }
    return batch
  }

  const bodyOf = (batch: Entry[]) => {
    const sentAt = `,"sent_at":"${new Date(clock()).toISOString()}"}`
    return `{"v2":[${batch.map(({ text }) => text.slice(0, -1) + sentAt)}]}`
  }

  const post = async (batch: Entry[], keepalive = false) => {
    const [first] = batch as [Entry]
    const who = first.who!
    const by: Request = new AbortController()
    by.keepalive = keepalive
    for (const entry of batch) entry.sent = by
    later(requestTimeout, () => by.abort())
    const answer = await request(clock, () => (options.fetch ?? source.fetch ?? fetch)(source.url, {
      method: 'POST', headers: who.headers, body: bodyOf(batch), keepalive, signal: by.signal }))
    if (answer.status === 401 && !first.renewed) {
      await ask()
      first.renewed = first.who !== who
    }
    // Else another request has taken the events over, or they were dropped.
    if (first.sent === by) settle(batch, answer, first.who !== who)
  }

  /** @returns whether it is any use to go on at once. */
  const settle = (batch: Entry[], answer: Answer, isRenewed = false): boolean => {
    const { status, body } = answer
    for (const entry of batch) entry.sent = undefined
    if (isComplete(answer, batch.length)) {
      failures = 0
      limit = Math.min(limit * 2, maxBatchSize)
      batch.forEach((entry, i) => record(entry, body.results[i]))
    } else if (!isRefusal(answer)) {
      backOff(answer.retryAfter)
      for (const entry of batch) {
        if (entry.waiter && (++entry.attempts === ATTEMPTS || answer.retryAfter! > maxRetryDelay)) {
          drop(entry, errorOf(answer))
        }
      }
      return false
    } else if (batch[1] && (status === 413 || (status === 400 && !isDatabases(body)))) {
      // Too much at once; or one of them made the whole request unreadable, and is found by halving.
      limit = Math.ceil(batch.length / 2)
    } else if (status !== 401 || !isRenewed) {
      // A person whose token ran out may be back; a key that was refused will be refused again.
      const isPersons = status === 401 && batch[0]!.who!.identity!.startsWith('user:')
      for (const entry of batch) (isPersons ? abandon : drop)(entry, errorOf(answer))
    }
    return true
  }

  const record = (entry: Entry, { result, event_id, warnings = [], error }: Result) => {
    if (result === 'drop') return drop(entry, errorOf({ status: 200, body: error }))
    end(entry)
    const duplicate = result === 'duplicate'
    counts[duplicate ? 'duplicates' : 'sent']++
    entry.waiter?.done({ eventId: event_id!, duplicate, warnings })
  }

  // Full jitter: however many were turned away together, they come back one by one.
  const backOff = (least = 0) => {
    counts.retries++
    isBidden = least > 0
    resume()
    pause = later(Math.max(least, Math.random() * Math.min(maxRetryDelay, retryDelay * 2 ** failures++)), resume)
  }
  const resume = () => {
    clearTimeout(pause)
    pause = undefined
    tell()
  }
  const hurry = () => { if (!isBidden) resume() }

  /** Sends what is free until nothing is. */
  const run = () => guarded(async () => {
    isLast = false
    if (isRunning) return
    isRunning = true
    while (!refusal && !isLast && entries.size) {
      while (pause) await change()
      await ask()
      const batch = cut(MAX_BYTES)
      if (!batch[0]) break
      await post(batch)
    }
    isRunning = false
    // Nothing else would tell that somebody has come.
    if (entries.size && !source.watch) schedule()
  })
  const schedule = () => { timer ??= later(flushInterval, () => { timer = undefined; run() }) }


  // Waiting for it, and leaving ----------------------------------------------------------------------------

  const waiters: (() => void)[] = []
  const change = () => new Promise<void>((done) => waiters.push(done))
  const tell = () => { for (const waiter of waiters.splice(0)) waiter() }
  /** What is left has had its chance. */
  let isLast = false

  /** Aborts what is under way, so that its events are free again. */
  const release = () => {
    for (const entry of entries) {
      if (!entry.sent || entry.sent.keepalive) continue
      entry.sent.abort()
      entry.sent = undefined
    }
  }

  /**
   * @param isAll waits also for what is tracked meanwhile
   * @returns whether it was done in time
   */
  const flush = async (ms = FOREVER, isAll = false) => {
    const isLeft = (entry: Entry) => entries.has(entry) && (entry.asking || isReady(entry))
    let isLate = false
    // Holds the process, too: somebody waits for this.
    const deadline = setTimeout(() => {
      isLate = isLast = true
      release()
      schedule()
      tell()
    }, ms)
    run()
    while (!isLate && !isAsked && (store || entries.size)) await change()
    const now = [...entries]
    while (!isLate && (isAll ? [...entries] : now).some(isLeft)) await change()
    clearTimeout(deadline)
    return !isLate
  }

  let isDraining = false
  const drain = async () => {
    isDraining = true
    while (await flush(EXIT_MS, true) && free()[0]);
    isDraining = false
  }

  const abandonAll = () => {
    for (const entry of entries) {
      abandon(entry, new TrackingError(entry.groupless ? 'no_group' : 'timeout'))
    }
  }

  // Node calls it again when what it started is done.
  const beforeExit = async () => {
    if (isLast) return abandonAll()
    await flush(store ? KEPT_EXIT_MS : EXIT_MS)
    isLast = true
  }

  const stopWatching = source.watch?.((who) => {
    arrive(who)
    run()
  })
  const page = watchPage(() => leave())
  store?.watch?.(adopt)
  if (store) void ask()

  const leave = (postNow?: SyncPost): void => {
    release()
    const room = () => [...entries].reduce((left, { sent, size }) => sent ? left - size : left, KEEPALIVE_BYTES)
    for (let batch; (batch = cut(postNow ? MAX_BYTES : room(), !postNow))[0];) {
      if (!postNow) {
        guarded(() => post(batch, true).then(run))
        continue
      }
      const answer = postNow(source.url, { headers: batch[0].who!.headers!, body: bodyOf(batch) })
      if (!answer || !settle(batch, readAnswer(answer.status, answer.body))) return
    }
    run()
  }

  const stats = () => {
    const inFlight = [...entries].filter(({ sent }) => sent).length
    const queued = free().length
    return { ...counts, queued, waiting: entries.size - inFlight - queued, inFlight, dropped: { ...dropped } }
  }

  return {
    /** Makes an event and takes it in; never throws. Who waits for it has it sent at once. */
    add(make: (group: string | null) => KeptEvent, waiter?: Waiter): void {
      counts.tracked++
      try {
        // Who waits is told at once that the server wants to be left alone.
        const code = refusal ?? (waiter && pause && isBidden ? 'rate_limited' : undefined)
        if (code) throw new TrackingError(code)
        const entry = hold(make(group), undefined, waiter)
        isLast = false
        identify(entry)
        if (!entry.who) keep(entry)
        const wasFull = isFull
        isFull = entries.size > maxQueueSize
        if (isFull) {
          const oldest = [...entries].find((one) => !one.sent && !one.waiter) ?? entry
          drop(oldest, new TrackingError('queue_full'), !wasFull)
        }
        if (waiter) hurry()
        if (waiter || (!isRunning && free().length >= flushAt)) run()
        else schedule()
      } catch (cause) {
        const error = cause instanceof TrackingError ? cause
          : new TrackingError('invalid_payload', { details: (cause as Error)?.message, cause })
        countDrop(error.code)
        if (waiter) waiter.failed(error)
        else if (error.cause) report(error) // nobody is told of what they asked for themselves
      }
      if (waitUntil && !isDraining) guarded(() => waitUntil(drain()))
    },

    group(orgId: string | null): void {
      group = orgId
      for (const entry of entries) {
        if (!entry.groupless) continue
        joinGroup(entry)
        keep(entry)
      }
      schedule()
    },

    flush: (ms?: number) => flush(ms).then(stats),
    flushSync: leave,

    async shutdown(ms = 30_000) {
      failures = 0
      hurry()
      await flush(ms, true)
      abandonAll()
      refusal = 'closed'
      stopWatching?.()
      page.abort()
      store?.close?.()
      return stats()
    },

    optOut(): void {
      refusal ??= 'opted_out'
      if (store) store.optedOut = true
      for (const entry of entries) {
        entry.sent?.abort()
        drop(entry, new TrackingError('opted_out'), false)
      }
      store?.clear()
    },

    optIn(): void {
      if (store) store.optedOut = false
      if (refusal !== 'opted_out' || options.disabled) return
      refusal = undefined
      adopt()
    },

    stats,
  }
}
