import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Sql } from 'postgres'
import { localPassword } from '../src/database.ts'
import { isLostConnection } from '../src/lease.ts'
import { openPool } from '../src/pool.ts'
import { freePort, startPostgres } from '../src/postgres.ts'
import { people, uuidV7 } from './demo.ts'
import { startBento, startLogSnag, startPostHog, startWebhook, type Fault, type Received, type Receiver } from './receivers.ts'
import { startCommand, type Process } from './workers.ts'
import { furnish, temporaryFolder } from './world.ts'

// The proof: events are written and delivered while receivers fail, workers are killed and Postgres is killed; then
// what each receiver has is compared with what is in the log, and a replay with what was sent before.

export type ProofOptions = {
  /** How many events are written. */
  events: number
  /** The share of requests that something goes wrong with. */
  faults: number
  workers: number
  /** How often each worker is killed, and how often Postgres. */
  kills: { worker: number, postgres: number }
  /** Told how it goes. */
  tell?(text: string): void
}

/** What a sink's receiver has, beside what is in the log. */
export type SinkProof = {
  /** The books before the replay: events of the log, and what became of them. */
  events: number, delivered: number, filtered: number, undelivered: number, pending: number
  /** Different events that the receiver took. */
  received: number
  /** Events that it should have, and does not; and those that it has, and should not. */
  missing: number, unasked: number
  /** Events of an org that came for the first time after a later one of that org. */
  outOfOrder: number
  /** Events that were other bytes when they came again, while all went wrong; and in the replay. */
  changed: number, changedInReplay: number
  /** Events that the replay sent, those that it sent more than once, and those that the books then call delivered. */
  replayed: number, replayedTwice: number, deliveredInReplay: number
  /** Times that an event came again before the replay. */
  repeated: number
  /** Requests that broke the vendor's contract. */
  breaches: string[]
}

export type Proof = {
  sinks: Record<string, SinkProof>
  gaps: number
  kills: { worker: number[], postgres: number }
  /** What workers told as errors. */
  errors: string[]
  seconds: { delivery: number, replay: number }
}

/** Runs the proof on servers of its own. */
export async function prove(options: ProofOptions): Promise<Proof> {
  const tell = options.tell ?? (() => {})
  const folder = await temporaryFolder()
  const database = await startDatabase(folder.path)
  const vendors = await startVendors(options.faults, folder.path)
  const crew = new Crew(options, database.url, vendors)
  const started = performance.now()
  const stop = new AbortController()
  const watching = watch(stop.signal, async () => { for (const vendor of vendors) await vendor.collect() }, 50)
  try {
    for (const { name, kind, settings, shards, events } of vendors) {
      await database.sql`select tracking.create_sink(${name}, ${kind}, ${database.sql.json(settings)}, shards => ${shards}, events => ${events ?? null})`
    }
    const orgs = await createOrgs(database.sql, Math.max(20, Math.min(200, options.events / 200)))
    const progress: Progress = { written: 0, delivered: 0 }
    const measuring = watch(stop.signal, async () => { progress.delivered = await shareDelivered(database.sql, options.events) }, 200)
    const reporting = watch(stop.signal, async () => tell(await describeProgress(database.sql, progress, crew, started)), 20_000)
    const work = Promise.all([crew.run(progress), writeAll(database, orgs, options.events, progress), killDatabase(database, options, progress)])
    await work
    await untilDelivered(database.sql, crew, options)
    const delivery = (performance.now() - started) / 1000
    tell(`delivered in ${Math.round(delivery)} s; now the replay`)

    let gaps = await countGaps(database.sql)
    for (const vendor of vendors) {
      await vendor.beginReplay()
      vendor.books = await readBooks(database.sql, vendor)
    }
    for (const { name } of vendors) await database.sql`select tracking.rewind_sink(${name}, '-infinity')`
    const replayStarted = performance.now()
    await untilDelivered(database.sql, crew, options)
    for (const vendor of vendors) await vendor.collect()
    stop.abort()
    await Promise.all([watching, measuring, reporting])
    const sinks: Record<string, SinkProof> = {}
    for (const vendor of vendors) sinks[vendor.name] = await compare(database.sql, vendor)
    gaps += await countGaps(database.sql)
    return {
      sinks, gaps, errors: crew.errors, kills: { worker: crew.kills, postgres: database.kills },
      seconds: { delivery: Math.round(delivery), replay: Math.round((performance.now() - replayStarted) / 1000) } }
  } finally {
    stop.abort()
    await crew.stop()
    await watching
    for (const vendor of vendors) await vendor.close()
    await database.close()
    await folder.remove()
  }
}


// The database --------------------------------------------------------------------------------------

type Database = { readonly url: string, readonly sql: Sql, kills: number, crash(): Promise<void>, close(): Promise<void> }

async function startDatabase(folder: string): Promise<Database> {
  const port = await freePort()
  const url = `postgres://postgres:${localPassword}@127.0.0.1:${port}/postgres`
  // Only the processes are killed, never the machine.
  const start = () => startPostgres({ port, dataDir: folder, parameters: { fsync: 'off', full_page_writes: 'off', max_wal_size: '4GB' } })
  let server = await start()
  const sql = openPool(url, { max: 12 })
  await furnish(sql, url)
  const database: Database = {
    url, sql, kills: 0,
    async crash() {
      await server.kill()
      await sleep(200)
      server = await start()
      database.kills++
    },
    async close() {
      await sql.end({ timeout: 1 })
      await server.stop()
    },
  }
  return database
}

/** Asks again until the database is there. */
async function stubbornly<T>(ask: () => PromiseLike<T>): Promise<T> {
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (!isLostConnection(error)) throw error
      await sleep(100)
    }
  }
}

/** How far it all is: events written, and the share of all deliveries that is done. */
type Progress = { written: number, delivered: number }

/** Kills Postgres once while events are written, and then throughout the delivery. */
async function killDatabase(database: Database, { events, kills }: ProofOptions, progress: Progress): Promise<void> {
  for (let kill = 1; kill <= kills.postgres; kill++) {
    while (kill === 1 ? progress.written < events / 2 : progress.delivered < (kill - 1) / kills.postgres) await sleep(20)
    await database.crash()
  }
}

async function shareDelivered(sql: Sql, events: number): Promise<number> {
  const sinks = await readDone(sql)
  return sinks.reduce((sum, { done }) => sum + done, 0) / (sinks.length * events)
}

async function createOrgs(sql: Sql, count: number): Promise<string[]> {
  const rows = await sql<{ id: string }[]>`
    insert into public.orgs (id, name)
    select gen_random_uuid(), 'Org ' || n from generate_series(1, ${Math.floor(count)}::integer) as n
    returning id`
  return rows.map(({ id }) => id)
}

const writers = 8

/** Writes events, each org's by one writer, in transactions of some; what was not acknowledged is written again. */
async function writeAll({ sql }: Database, orgs: string[], events: number, progress: Progress): Promise<void> {
  const write = async (writer: number) => {
    const own = orgs.filter((_, n) => n % writers === writer)
    for (let left = Math.floor(events / writers) + (writer < events % writers ? 1 : 0); left > 0;) {
      const rows = Array.from({ length: Math.min(left, 1 + Math.floor(Math.random() * 40)) }, () => makeEvent(own[Math.floor(Math.random() * own.length)]!))
      await stubbornly(() => sql`
        insert into public.events (scope_id, org_id, actor_id, occurred_at, event_id, event, channel, description, tags, context, source)
        select r.org_id, r.org_id, r.actor_id, tracking.event_time(r.event_id), r.event_id, r.event, 'proof', r.description, r.tags, '{"os": "linux", "ci": true}', 'service'
        from   jsonb_to_recordset(${JSON.stringify(rows)}::text::jsonb) as r (org_id uuid, actor_id uuid, event_id uuid, event text, description text, tags jsonb)
        on     conflict do nothing`)
      left -= rows.length
      progress.written += rows.length
    }
  }
  await Promise.all(Array.from({ length: writers }, (_, writer) => write(writer)))
}

const actors = [people.ada, people.bob, people.cyd]

function makeEvent(org: string) {
  const n = Math.floor(Math.random() * 10)
  return { org_id: org, actor_id: actors[n % 3], event_id: uuidV7(), event: `Kind ${n}`, description: n === 0 ? 'A sentence – with “signs” 🚀' : null, tags: { n, text: 'x'.repeat(n * 10), nested: { deep: [1, 2.5, null] } } }
}

async function untilDelivered(sql: Sql, crew: Crew, { events }: ProofOptions): Promise<void> {
  while ((await readDone(sql)).some(({ done }) => done < events)) {
    crew.mustBeWell()
    await sleep(500)
  }
}

/** How many events each sink is done with; its books, which look at the log, are for the end. */
function readDone(sql: Sql): Promise<{ sink: string, done: number }[]> {
  return stubbornly(() => sql<{ sink: string, done: number }[]>`
    select sink, sum(delivered + filtered + undelivered)::float8 as done from tracking.cursors group by sink order by sink`)
}

async function describeProgress(sql: Sql, progress: Progress, crew: Crew, started: number): Promise<string> {
  const sinks = (await readDone(sql)).map(({ sink, done }) => `${sink} ${done}`).join(', ')
  const seconds = Math.round((performance.now() - started) / 1000)
  return `${seconds} s: ${progress.written} written; done ${sinks}; killed ${crew.kills.join(' + ')}`
}


/** Does something again and again, one at a time, until it is told to stop. */
async function watch(signal: AbortSignal, work: () => Promise<void>, everyMs: number): Promise<void> {
  while (!signal.aborted) {
    await work()
    await sleep(everyMs, undefined, { signal }).catch(() => {})
  }
}


// The workers ---------------------------------------------------------------------------------------

/** Workers, each a process that is killed again and again. */
class Crew {
  readonly kills: number[]
  readonly errors: string[] = []
  private readonly members: (Process | undefined)[]
  private isOver = false

  constructor(private readonly options: ProofOptions, private readonly databaseUrl: string, private readonly vendors: readonly Vendor[]) {
    this.kills = Array.from({ length: options.workers }, () => 0)
    this.members = this.kills.map(() => undefined)
  }

  /** Resolves when all have been killed as often as they shall be; their successors go on. */
  async run(progress: Progress): Promise<void> {
    const { worker: kills } = this.options.kills
    await Promise.all(this.kills.map(async (_, n) => {
      while (this.kills[n]! < kills && !this.isOver) {
        const worker = this.start(n)
        await worker.untilTold('the worker begins')
        while (!this.isOver && progress.delivered < (this.kills[n]! + n / this.kills.length) / (kills + 1)) await sleep(50)
        await sleep(200 + Math.random() * 2000)
        worker.kill('SIGKILL')
        await worker.exited
        this.remember(worker)
        this.kills[n]!++
      }
      if (!this.isOver) this.start(n)
    }))
  }

  /** @throws {Error} where a worker ended that nobody killed. */
  mustBeWell(): void {
    for (const worker of this.members) if (worker?.hasEnded()) throw new Error(`A worker has ended by itself:\n${worker.told()}`)
  }

  async stop(): Promise<void> {
    this.isOver = true
    for (const worker of this.members) worker?.kill('SIGKILL')
    await Promise.all(this.members.map((worker) => worker?.exited))
  }

  private start(n: number): Process {
    const environment = Object.assign({}, ...this.vendors.map(({ secrets }) => secrets)) as Record<string, string>
    return this.members[n] = startCommand(['worker', '--no-jobs', '--lease', '5s', '--concurrency', '8'], { ...environment, DATABASE_URL: this.databaseUrl })
  }

  private remember(worker: Process): void {
    for (const { level, message, error } of worker.lines()) if (level === 'error') this.errors.push(`${message}: ${String(error)}`)
  }
}


// The vendors ---------------------------------------------------------------------------------------

/** A sink, who receives what is sent to it, and what came. */
class Vendor {
  /** The bytes that each event came as, by its id, and the order that they came in first. */
  readonly first = new Map<string, string>()
  readonly changed = new Set<string>()
  readonly changedInReplay = new Set<string>()
  readonly replayed = new Map<string, number>()
  repeated = 0
  /** What the database says before the replay. */
  books: Books = { delivered: 0, filtered: 0, undelivered: 0, pending: 0 }
  private isReplay = false

  constructor(
    readonly name: string, readonly kind: string, readonly shards: number, readonly settings: Record<string, string | number>, readonly secrets: Record<string, string>,
    /** The events that it wants; undefined: all. */
    readonly events: string[] | undefined,
    private readonly read: () => Promise<{ id: string, bytes: string }[]>,
    private readonly receiver?: Receiver<never>,
  ) {}

  get breaches(): string[] {
    return this.receiver?.breaches ?? []
  }

  /** Notes what has come since it was last asked. */
  async collect(): Promise<void> {
    for (const { id, bytes } of await this.read()) {
      const hash = createHash('sha1').update(bytes).digest('base64')
      const before = this.first.get(id)
      if (this.isReplay) {
        this.replayed.set(id, (this.replayed.get(id) ?? 0) + 1)
        if (before !== hash) this.changedInReplay.add(id)
      } else if (before === undefined) {
        this.first.set(id, hash)
      } else {
        this.repeated++
        if (before !== hash) this.changed.add(id)
      }
    }
  }

  /** From now on nothing goes wrong, and what comes is compared with what came. */
  async beginReplay(): Promise<void> {
    await this.collect()
    if (this.receiver) this.receiver.options = { ...this.receiver.options, fault: undefined }
    this.isReplay = true
  }

  async close(): Promise<void> {
    await this.receiver?.close()
  }
}

/** An event in two hundred that no vendor will have. */
const isPoison = (id: string): boolean => Number.parseInt(id.slice(-3), 16) % 200 === 7

async function startVendors(faults: number, folder: string): Promise<Vendor[]> {
  const secret = `whsec_${btoa('a secret of 24 bytes ...')}`
  const base = { forgetRequests: true }
  const posthog = await startPostHog('phc_proof', { ...base, fault: faultsOf(faults, ({ body }) => (body as { batch?: unknown[] })?.batch?.length ?? 1), poison: ({ uuid }) => isPoison(uuid) })
  const logsnag = await startLogSnag('token-of-proof', 'proof', { ...base, fault: faultsOf(faults, () => 1), poison: ({ tags }) => isPoison(String(tags?.['event-id'])) })
  const bento = await startBento({ siteUuid: 'site', publishableKey: 'publishable', secretKey: 'secret-of-bento', requestsPerMinute: 1e9 }, {
    ...base, fault: faultsOf(faults, ({ body }) => (body as { events?: unknown[] })?.events?.length ?? 1), poison: ({ details }) => isPoison(String(details?.event_id)) })
  const webhook = await startWebhook(secret, { ...base, fault: faultsOf(faults, () => 1), poison: ({ id }) => isPoison(id) })
  const file = join(folder, 'events.ndjson')
  const taken = <Item>({ taken }: Receiver<Item>, idOf: (item: Item) => string, bytesOf: (item: Item) => string = (item) => JSON.stringify(item)) =>
    async () => taken.splice(0).map((item) => ({ id: idOf(item), bytes: bytesOf(item) }))
  return [
    new Vendor('posthog', 'posthog', 4, { host: posthog.url }, { ACTORSCOPE_SINK_POSTHOG_API_KEY: 'phc_proof' }, undefined, taken(posthog, ({ uuid }) => uuid), posthog as never),
    new Vendor('logsnag', 'logsnag', 16, { host: logsnag.url, project: 'proof' }, { ACTORSCOPE_SINK_LOGSNAG_TOKEN: 'token-of-proof' }, ['Kind 1*', 'Kind 7', 'Kind 8'],
      taken(logsnag, ({ tags }) => String(tags?.['event-id'])), logsnag as never),
    new Vendor('bento', 'bento', 4, { host: bento.url, site_uuid: 'site', requests_per_minute: 1_000_000 }, { ACTORSCOPE_SINK_BENTO_PUBLISHABLE_KEY: 'publishable', ACTORSCOPE_SINK_BENTO_SECRET_KEY: 'secret-of-bento' }, undefined,
      taken(bento, ({ details }) => String(details?.event_id)), bento as never),
    new Vendor('webhook', 'webhook', 24, { url: `${webhook.url}/hooks` }, { ACTORSCOPE_SINK_WEBHOOK_SECRET: secret }, undefined, taken(webhook, ({ id }) => id, ({ text }) => text), webhook as never),
    new Vendor('ndjson', 'ndjson', 1, { path: file }, {}, undefined, linesOf(file)),
  ]
}

/** What goes wrong: a share of all requests, in equal parts where that is possible. */
function faultsOf(share: number, itemsIn: (request: Received) => number): (request: Received) => Fault | undefined {
  return (request) => {
    if (Math.random() >= share) return undefined
    const items = itemsIn(request)
    const faults: Fault[] = [
      { status: [500, 502, 503][Math.floor(Math.random() * 3)]! }, { cut: 'before' }, { cut: 'after' }, { delayMs: 20 + Math.random() * 200 }, { status: 500 },
      // A single event that is too large is refused for good, rightly; and of many small requests, few are throttled.
      items > 1 ? { status: 413 } : { status: 503 },
      items > 1 || Math.random() < 0.1 ? { status: 429, headers: { 'retry-after': '1' } } : { cut: 'before' },
    ]
    return faults[Math.floor(Math.random() * faults.length)]
  }
}

/** Reads on in a file of lines; what is no event was cut short when its writer was killed. */
function linesOf(path: string): () => Promise<{ id: string, bytes: string }[]> {
  let offset = 0
  return async () => {
    const text = await readFile(path).then((bytes) => bytes.subarray(offset), () => Buffer.alloc(0))
    const end = text.lastIndexOf(0x0a) + 1
    offset += end
    return text.toString('utf8', 0, end).split('\n').flatMap((line) => {
      try { return [{ id: (JSON.parse(line) as { event_id: string }).event_id, bytes: line }] } catch { return [] }
    })
  }
}

type Books = Pick<SinkProof, 'delivered' | 'filtered' | 'undelivered' | 'pending'>

async function readBooks(sql: Sql, { name }: Vendor): Promise<Books> {
  const [books] = await sql<Books[]>`
    select delivered::float8, filtered::float8, undelivered::float8, pending::float8
    from   tracking.sink_lag
    where  sink = ${name}`
  return books!
}

async function countGaps(sql: Sql): Promise<number> {
  const [row] = await sql<{ gaps: number }[]>`select count(*)::integer as gaps from tracking.delivery_gaps`
  return row!.gaps
}

/** Sets what a vendor has beside what is in the log. */
async function compare(sql: Sql, vendor: Vendor): Promise<SinkProof> {
  const log = await sql<{ id: string, org: string, event: string }[]>`select event_id as id, org_id as org, event from public.events order by epoch, txid, event_id`
  const matches = (event: string, pattern: string) => pattern.endsWith('*') ? event.startsWith(pattern.slice(0, -1)) : event === pattern
  const wanted = log.filter(({ event }) => vendor.events?.some((pattern) => matches(event, pattern)) ?? true)
    .filter(({ id }) => vendor.kind === 'ndjson' || !isPoison(id))
  const ids = new Set(wanted.map(({ id }) => id))
  const announcements = vendor.kind === 'posthog' ? await announcementsIn(sql) : new Set<string>()
  const arrival = new Map([...vendor.first.keys()].map((id, place) => [id, place]))
  const latest = new Map<string, number>()
  let outOfOrder = 0
  for (const { id, org } of wanted) {
    const place = arrival.get(id) ?? Infinity
    if (place < (latest.get(org) ?? -1)) outOfOrder++
    latest.set(org, Math.max(place, latest.get(org) ?? -1))
  }
  const others = [...vendor.first.keys()].filter((id) => !ids.has(id))
  return {
    events: log.length, ...vendor.books, deliveredInReplay: (await readBooks(sql, vendor)).delivered,
    received: vendor.first.size - others.filter((id) => announcements.has(id)).length,
    missing: wanted.filter(({ id }) => !vendor.first.has(id)).length,
    unasked: others.filter((id) => !announcements.has(id)).length,
    outOfOrder, changed: vendor.changed.size, changedInReplay: vendor.changedInReplay.size,
    replayed: [...vendor.replayed.keys()].filter((id) => ids.has(id)).length,
    replayedTwice: [...vendor.replayed.entries()].filter(([id, times]) => ids.has(id) && times > 1).length,
    repeated: vendor.repeated, breaches: vendor.breaches.slice(0, 5),
  }
}

/** PostHog is told of orgs by events that are not in the log. */
async function announcementsIn(sql: Sql): Promise<Set<string>> {
  const rows = await sql<{ id: string }[]>`
    select tracking.derived_event_id(format('$groupidentify %s %s', a.event_id, a.name), a.occurred_at) as id from tracking.announced_orgs as a`
  return new Set(rows.map(({ id }) => id))
}
