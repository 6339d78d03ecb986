import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { Sql } from 'postgres'
import { connect, localPassword } from '../src/database.ts'
import { freePort, startPostgres, type PostgresServer } from '../src/postgres.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { as, failureOf, person, trackEvent } from './sessions.ts'
import { asLogin, cloneDatabase, furnish, inDatabase, temporaryFolder, templates, type Clone } from './world.ts'

// A log that is dumped in one cluster and restored into another, where the ids of transactions start over.

let folder: { path: string, remove(): Promise<void> }
let server: PostgresServer
let serverUrl: string
let admin: Sql
let databases = 0

beforeAll(async () => {
  folder = await temporaryFolder()
  const port = await freePort()
  server = await startPostgres({ port, dataDir: folder.path, parameters: { fsync: 'off', full_page_writes: 'off', max_prepared_transactions: '5' } })
  serverUrl = `postgres://postgres:${localPassword}@127.0.0.1:${port}/postgres`
  admin = connect(serverUrl, { max: 1 })
  await admin`create database template`
  const template = connect(inDatabase(serverUrl, 'template'), { max: 1 })
  await furnish(template, inDatabase(serverUrl, 'template'))
  await template.end()
})
afterAll(async () => {
  await admin?.end()
  await server?.stop()
  await folder?.remove()
})

let here: Sql
let clone: Clone
const open: Sql[] = []

beforeEach(async () => {
  clone = await cloneDatabase(templates.world)
  here = connectTo(clone.databaseUrl)
  return async () => {
    await Promise.all(open.splice(0).map((sql) => sql.end({ timeout: 1 })))
    await clone.drop()
  }
})

/**
 * How a log is restored: how far the other cluster is with its ids of transactions, `level` being amid those of the
 * log; and in which transactions, one for each table unless it says otherwise.
 */
type Way = { there?: 'behind' | 'level' | 'ahead', at?: 'rows' | 'partitions' | 'once', byChance?: boolean, keepsLog?: boolean, clockAhead?: boolean }

test.each<[string, Way]>([
  ['by a transaction whose id happens to be that of the oldest event', { there: 'behind', byChance: true }],
  ['into a cluster that is behind', { there: 'behind' }],
  ['into a cluster that is ahead', { there: 'ahead' }],
  ['into a cluster that is about as far', { there: 'level' }],
  ['into a cluster whose clock is behind', { there: 'behind', clockAhead: true }],
  ['row by row, into a cluster that is behind', { there: 'behind', at: 'rows' }],
  ['row by row, into a cluster that is ahead', { there: 'ahead', at: 'rows' }],
  ['partition by partition, side by side, into a cluster that is behind', { there: 'behind', at: 'partitions' }],
  ['partition by partition, side by side, into a cluster that is ahead', { there: 'ahead', at: 'partitions' }],
  ['in one transaction, into a cluster that is behind', { there: 'behind', at: 'once' }],
  ['in one transaction, into a cluster that is about as far', { there: 'level', at: 'once' }],
])('restored %s, a log is read on when that is said: nothing is skipped and nothing doubled', async (_, way) => {
  // Given a log with three sinks: one has caught up, one is in the middle of a batch while others write, one has nothing
  await prepare(way)
  for (const name of ['caught_up', 'amid', 'behind']) await here`select tracking.create_sink(${name}, 'ndjson', from_beginning => true)`
  const late = await openTransaction(here, 'Late')
  for (let n = 0; n < 30; n++) await write(here, `Old ${n}`)
  const delivered = { caught_up: await drain(here, 'caught_up'), amid: await take(here, 'amid', 7), behind: [] as string[] }
  await here`select tracking.roll_up(20)`
  await late.commit()
  await write(here, 'Older', 'than the dump')
  await backfill(here, 'Old, of another month')
  delivered.caught_up.push(...await drain(here, 'caught_up'))

  // When it is restored elsewhere, and events are written there meanwhile, and before anybody says so
  if (way.clockAhead) await here`update events set received_at = received_at + interval '2 hours'`
  const there = await restoreElsewhere(here, way, (sql) => inSubtransaction(sql, 'New 0'))
  await write(there, 'New 1')
  await inSubtransaction(there, 'New 2')
  await writeAsPeople(there, 'Early')

  // Then no sink is read on, made or rewound, and nothing is dropped
  for (const statement of [`lease_batch('caught_up', 'test')`, `create_sink('more', 'ndjson')`, `rewind_sink('amid', '-infinity')`, `make_partitions()`, `drop_partitions('0')`, `roll_up()`, `recount_activity()`,
    `apply_retention()`, `note_export('2025-03-01', 'f', 1, '1:1:')`, `erase_actor('${people.ada}')`, `continue_erasure('${people.ada}')`]) {
    expect(await failureOf(there.unsafe(`select tracking.${statement}`))).toMatchObject({ code: '55000', message: 'log_restored' })
  }
  expect((await there`select epoch, event from events where event like 'New %' order by event`).map(({ epoch }) => epoch)).toEqual([1, 1, 1])

  // When it is said, what was written here belongs to the new generation, and the rest to the old one
  expect((await there`select tracking.raise_epoch() as epoch`)[0]?.epoch).toBe(2)
  expect(await there`select count(*)::int as n from events where epoch = 1 and (event like 'New %' or event like 'Early %' or tags ->> 'build_mode' = 'Early')`).toEqual([{ n: 0 }])
  expect(await there`select count(*)::int as n from events where epoch = 2 and (event like 'Old%' or event = 'Late')`).toEqual([{ n: 0 }])

  // And people, triggers and the service write in it
  await writeAsPeople(there, 'Later')
  await write(there, 'New 3')
  expect(await there`select distinct epoch from events where event like 'Later %' or tags ->> 'build_mode' = 'Later' or event = 'New 3'`).toEqual([{ epoch: 2 }])

  // Then every sink gets each event once, here or there
  const all = (await there<{ event_id: string }[]>`select event_id from events order by epoch, txid, event_id`).map(({ event_id }) => event_id)
  for (const [sink, before] of Object.entries(delivered)) {
    expect([sink, [...before, ...await drain(there, sink)].toSorted()]).toEqual([sink, all.toSorted()])
  }
  expect(await there`select * from tracking.delivery_gaps`).toEqual([])
  expect(await there`select sum(pending)::int as n from tracking.sink_lag`).toEqual([{ n: 0 }])

  // And the rollup has each once, those of the old generation first
  expect(await there`select sum(events)::int as n from tracking.hours`).toEqual([{ n: all.length }])
  await there`select tracking.roll_up(15)`
  expect(await there`select sum(events)::int as n from tracking.hours`).toEqual([{ n: all.length }])
  while (Number((await there`select tracking.roll_up(15) as added`)[0]!.added) > 0);
  expect(await there`select sum(cardinality(times))::int as n from tracking.activity`).toEqual([{ n: all.length }])
  expect(await there`select epoch from tracking.rollup`).toEqual([{ epoch: 2 }])

  // And it is said once
  expect(await failureOf(there`select tracking.raise_epoch()`)).toMatchObject({ code: '55000', message: 'log_not_restored' })

  // And a replay has all of it, the old generation first
  await there`select tracking.rewind_sink('amid', '-infinity')`
  expect(await drain(there, 'amid')).toEqual(all)
})

test.each<[string, Way]>([
  ['that is behind', { there: 'behind' }], ['that is ahead', { there: 'ahead' }], ['that is about as far', { there: 'level' }],
])('a log of which a month was copied without a channel, and of which somebody was erased, is read on in a cluster %s', async (_, way) => {
  // Given a month that lost a channel, here, before the dump
  await prepare(way)
  await here`select tracking.create_sink('sink', 'ndjson', from_beginning => true)`
  for (const name of ['Noise', 'Old 1', 'Old 2']) await backfill(here, name)
  await here`update events set channel = 'noise' where event = 'Noise'`
  await here`select tracking.make_partitions()`
  for (let n = 3; n < 20; n++) await write(here, `Old ${n}`)
  const delivered = await take(here, 'sink', 5)
  await here`insert into tracking.retention (channel, keep) values ('noise', '1 month')`
  expect(await here`select channels, dropped, events::int from tracking.apply_retention()`).toEqual([{ channels: ['noise'], dropped: true, events: 1 }])
  await here`insert into events (scope_id, actor_id, occurred_at, event_id, event, source)
    select ${people.bob}, ${people.bob}, tracking.event_time(i.id), i.id, 'Bob', 'service' from tracking.new_event_id('2025-03-06') as i (id)`
  await here`select tracking.erase_actor(${people.bob})`
  expect(await here`select * from tracking.delivery_gaps`).toEqual([])

  // When it is restored, and said so, and the same happens there
  const there = await restoreElsewhere(here, way, (sql) => inSubtransaction(sql, 'New 0'))
  await write(there, 'New 1')
  await there`select tracking.raise_epoch()`
  expect(await there`select distinct epoch, event like 'New %' as is_new from events order by 1`).toEqual([{ epoch: 1, is_new: false }, { epoch: 2, is_new: true }])
  await backfill(there, 'New noise')
  await there`update events set channel = 'noise' where event = 'New noise'`
  expect([...delivered, ...await drain(there, 'sink')].length).toBe(1 + 19 + 3)
  await there`insert into tracking.retention (channel, keep) values ('noise', '1 month')`
  await there`select tracking.make_partitions()`
  expect(await there`select channels, dropped, events::int from tracking.apply_retention()`).toEqual([{ channels: ['noise'], dropped: true, events: 1 }])
  expect(await there`select * from tracking.delivery_gaps`).toEqual([])
  expect(await there`select epoch, count(*)::int as n from events group by 1 order by 1`).toEqual([{ epoch: 1, n: 19 }, { epoch: 2, n: 2 }])

  // Then it is told apart once more, from there
  expect(await there`select tracking.is_restored() as it`).toEqual([{ it: false }])
  await there`select tracking.erase_actor(${people.ada})`
  expect(await there`select * from tracking.delivery_gaps`).toEqual([])
  expect(await there`select count(*)::int as n from events`).toEqual([{ n: 0 }])
})

test('restored row by row into a cluster that is about as far, a log may be sent twice in part, and nothing of it is skipped', async () => {
  await prepare({ there: 'level' })
  await here`select tracking.create_sink('sink', 'ndjson', from_beginning => true)`
  for (let n = 0; n < 60; n++) await write(here, `Old ${n}`)
  const before = await drain(here, 'sink')
  const there = await restoreElsewhere(here, { there: 'level', at: 'rows' }, (sql) => inSubtransaction(sql, 'New 0'))
  await inSubtransaction(there, 'New 1')
  await there`select tracking.raise_epoch()`
  const all = (await there<{ event_id: string }[]>`select event_id from events`).map(({ event_id }) => event_id)
  expect([...new Set([...before, ...await drain(there, 'sink')])].toSorted()).toEqual(all.toSorted())
})

test('restored without an event, a log is read on from the first one that is written, in a subtransaction', async () => {
  await prepare({ there: 'behind' })
  await here`select tracking.create_sink('sink', 'ndjson', from_beginning => true)`
  await write(here, 'Old')
  expect(await drain(here, 'sink')).toHaveLength(1)
  await here`truncate events`
  const there = await restoreElsewhere(here)
  await inSubtransaction(there, 'New')
  await there`select tracking.raise_epoch()`
  expect(await drain(there, 'sink')).toHaveLength(1)
})

test('who has written and not committed is given way to, also where that was prepared and forgotten', async () => {
  await here`select tracking.create_sink('sink', 'ndjson')`
  await write(here, 'Old')
  const there = await restoreElsewhere(here)
  const session = await there.reserve()
  await session`begin`
  await insert(session, 'New')
  expect(await failureOf(there`select tracking.raise_epoch()`)).toMatchObject({ code: '55P03' })
  await session`prepare transaction 'forgotten'`
  session.release()
  expect(await failureOf(there`select tracking.raise_epoch()`)).toMatchObject({ code: '55P03' })
  await there`commit prepared 'forgotten'`
  await there`select tracking.raise_epoch()`
  expect(await there`select event, epoch from events where event in ('Old', 'New') order by epoch`).toEqual([{ event: 'Old', epoch: 1 }, { event: 'New', epoch: 2 }])
  expect(await drain(there, 'sink')).toHaveLength(2)
})

test('a log that was never restored is of one generation', async () => {
  expect(await here`select tracking.is_restored() as it`).toEqual([{ it: false }])
  expect(await failureOf(here`select tracking.raise_epoch()`)).toMatchObject({ code: '55000', message: 'log_not_restored' })
  await here`vacuum full tracking.log`
  await here`vacuum freeze tracking.log`
  expect(await here`select tracking.is_restored() as it`).toEqual([{ it: false }])
})

test('a log whose rows alone were restored, into chapters applied anew, is noticed by its cursors', async () => {
  await here`select tracking.create_sink('sink', 'ndjson', from_beginning => true)`
  await prepare({ there: 'behind' })
  await write(here, 'Old')
  const before = await drain(here, 'sink')
  await here`select tracking.rewind_sink('sink', now())`
  const there = await restoreElsewhere(here, { keepsLog: true })
  expect(await failureOf(there`select tracking.lease_batch('sink', 'test')`)).toMatchObject({ code: '55000', message: 'log_restored' })
  await write(there, 'New')
  await there`select tracking.raise_epoch()`
  const all = (await there<{ event_id: string }[]>`select event_id from events`).map(({ event_id }) => event_id)
  expect([...before, ...await drain(there, 'sink')].toSorted()).toEqual(all.toSorted())
})

test('a reader of the old generation begins with the new one', async () => {
  const [{ at } = { at: null }] = await here`select read_events() -> 'cursor' as at`
  await write(here, 'Old')
  const there = await restoreElsewhere(here)
  await there`select tracking.raise_epoch()`
  await write(there, 'New')
  const [row] = await there`select read_events(${there.json(at)}) as answer`
  expect(row?.answer.events.map(({ event }: { event: string }) => event)).toEqual(['New'])
  expect(row?.answer.cursor.epoch).toBe(2)
})

function connectTo(url: string): Sql {
  const sql = connect(url, { max: 4 })
  open.push(sql)
  return sql
}

/** Sees to it that the other cluster is behind, where it is to be so, or to be made level. */
async function prepare({ there }: Way): Promise<void> {
  if (there === 'behind' || there === 'level') await burn(here, await next(admin) - await next(here) + 5000)
}

/** Uses up ids of transactions. */
async function burn(sql: Sql, count: number): Promise<void> {
  if (count <= 0) return
  await sql.unsafe(`do $$ begin for n in 1..${count} loop perform pg_current_xact_id(); commit; end loop; end $$`)
}

// What a dump holds besides the schema.
const tables = ['public.events', 'public.build_requests', 'tracking.sinks', 'tracking.cursors', 'tracking.undelivered', 'tracking.expired', 'tracking.log',
  'tracking.kinds', 'tracking.activity', 'tracking.rollup']

/**
 * Restores a dump of the log's tables into a database of the other cluster: the chapters, then the rows.
 *
 * @param amid is done there when the log's rows are there, and others are not.
 */
async function restoreElsewhere(from: Sql, { there, at, byChance, keepsLog }: Way = {}, amid = async (_: Sql) => {}): Promise<Sql> {
  const name = `restored_${databases++}`
  await admin.unsafe(`create database ${name} template template`)
  const url = inDatabase(serverUrl, name)
  const sql = connectTo(url)
  const restore = connect(url, { max: 16, connection: { session_replication_role: 'replica' } as never })
  const others = tables.filter((table) => table !== 'public.events' && !(keepsLog && table === 'tracking.log'))
  await restore.unsafe(`truncate ${['public.events', ...others].join(', ')} cascade`)
  const old = await from<{ id: number }[]>`select txid::text::float8 as id from events order by txid`
  const wanted = byChance ? old[0]?.id : there === 'level' ? old[Math.floor(old.length / 2)]?.id : there === 'ahead' ? await next(from) + 5000 : 0
  await burn(restore, (wanted ?? 0) - await next(restore))

  if (at === 'once') {
    await restore.begin(async (tx) => { for (const table of ['public.events', ...others]) await copyTable(from, tx as unknown as Sql, table) })
  } else if (at === 'partitions') {
    const partitions = await from<{ name: string }[]>`select inhrelid::regclass::text as name from pg_inherits where inhparent = 'public.events'::regclass`
    await Promise.all(partitions.map((partition) => copyTable(from, restore, partition.name)))
  } else {
    await (at === 'rows' ? copyRows : copyTable)(from, restore, 'public.events')
  }
  await amid(sql)
  if (at !== 'once') for (const table of others) await (at === 'rows' ? copyRows : copyTable)(from, restore, table)
  await restore`select setval('tracking.kinds_kind_id_seq', 1 + (select count(*) from tracking.kinds))`
  await restore.end()
  return sql
}

/** As `pg_dump` has it. */
async function copyTable(from: Sql, to: Sql, table: string): Promise<void> {
  const rows = await (await from.unsafe(`copy (select * from ${table}) to stdout`).readable()).toArray()
  await pipeline(Readable.from(rows), await to.unsafe(`copy ${table} from stdin`).writable())
}

/** As `pg_dump --inserts` has it. */
async function copyRows(from: Sql, to: Sql, table: string): Promise<void> {
  const rows = await from.unsafe<{ row: string }[]>(`select row_to_json(t)::text as row from ${table} as t`)
  for (const { row } of rows) await to.unsafe(`insert into ${table} select * from json_populate_record(null::${table}, $1::text::json)`, [row])
}

const next = async (sql: Sql): Promise<number> => (await sql`select pg_snapshot_xmax(pg_current_snapshot())::text::float8 as id`)[0]?.id

/** Writes an event of a month that has no partition. */
async function backfill(sql: Sql, name: string): Promise<void> {
  await sql`
    insert into events (scope_id, actor_id, occurred_at, event_id, event, source)
    select ${people.ada}, ${people.ada}, tracking.event_time(i.id), i.id, ${name}, 'service' from tracking.new_event_id('2025-03-05') as i (id)`
}

async function write(sql: Sql, ...names: string[]): Promise<void> {
  for (const name of names) await insert(sql, name)
}

async function insert(sql: Pick<Sql, 'unsafe'>, name: string): Promise<void> {
  await sql.unsafe(`
    insert into events (scope_id, actor_id, occurred_at, event_id, event, source)
    select '${people.ada}', '${people.ada}', tracking.event_time(i.id), i.id, $1, 'service' from tracking.new_event_id(clock_timestamp()) as i (id)`, [name])
}

/** Writes an event as a trigger would: in a subtransaction, whose id is not the one that the row names. */
async function inSubtransaction(sql: Sql, name: string): Promise<void> {
  await sql.begin(async (tx) => {
    await tx`select pg_current_xact_id()`
    await burn(sql, 3)
    await tx.savepoint((sub) => insert(sub as unknown as Sql, name))
  })
}

/** An event by RPC, one by a direct insert, and those of a build. */
async function writeAsPeople(sql: Sql, when: string): Promise<void> {
  const api = connectTo(asLogin(`postgres://${sql.options.user}@${sql.options.host[0]}:${sql.options.port[0]}/${sql.options.database}`, 'authenticator'))
  await as(api, person(people.ada), async (tx) => {
    expect(await trackEvent(tx, { event: `${when} by RPC`, tracking_version: 2, org_id: orgs.acme })).toMatchObject({ status: 'ok' })
  })
  const id = uuidV7()
  await as(api, person(people.ada), (tx) => tx`
    insert into events (scope_id, org_id, occurred_at, event_id, event)
    values (${orgs.acme}, ${orgs.acme}, ${new Date(Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16))}, ${id}, ${`${when} by insert`})`)
  await as(api, person(people.ada), (tx) => tx`select request_build('com.acme.app', 'ios', ${when})`)
  expect(await sql`select count(*)::int as n from events where event like ${`${when} by %`} or tags ->> 'build_mode' = ${when}`).toEqual([{ n: 3 }])
}

async function openTransaction(sql: Sql, name: string) {
  const connection = await sql.reserve()
  await connection`begin`
  await insert(connection, name)
  return { commit: async () => { await connection`commit`; connection.release() } }
}

type Batch = { shard: number, lease: string, events: { event_id: string }[] }

async function take(sql: Sql, sink: string, size: number): Promise<string[]> {
  const [batch] = await sql<Batch[]>`select * from tracking.lease_batch(${sink}, 'test', ${size})`
  if (!batch) return []
  await sql`select tracking.complete_batch(${sink}, ${batch.shard}, ${batch.lease})`
  return batch.events.map(({ event_id }) => event_id)
}

async function drain(sql: Sql, sink: string): Promise<string[]> {
  const all: string[] = []
  for (let ids = await take(sql, sink, 10); ids.length > 0; ids = await take(sql, sink, 10)) all.push(...ids)
  return all
}
