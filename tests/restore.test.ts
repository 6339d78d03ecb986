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
let databases = 0

beforeAll(async () => {
  folder = await temporaryFolder()
  const port = await freePort()
  server = await startPostgres({ port, dataDir: folder.path, parameters: { fsync: 'off', full_page_writes: 'off' } })
  serverUrl = `postgres://postgres:${localPassword}@127.0.0.1:${port}/postgres`
  const admin = connect(serverUrl, { max: 1 })
  await admin`create database template`
  const template = connect(inDatabase(serverUrl, 'template'), { max: 1 })
  await furnish(template, inDatabase(serverUrl, 'template'))
  await template.end()
  await admin.end()
})
afterAll(async () => {
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

type Way = { burnHere?: number, burnThere?: number, rowByRow?: boolean, byChance?: boolean }

test.each<[string, Way]>([
  ['by a transaction whose id happens to be that of the oldest event', { burnHere: 5000, byChance: true }],
  ['into a cluster that is behind', { burnHere: 5000 }],
  ['into a cluster that is ahead', { burnThere: 20_000 }],
  ['into a cluster that is about as far', {}],
  ['row by row, into a cluster that is behind', { burnHere: 30_000, rowByRow: true }],
  ['row by row, into a cluster that is ahead', { burnThere: 40_000, rowByRow: true }],
])('restored %s, a log is read on when that is said: nothing is skipped and nothing doubled', async (_, { burnHere = 0, burnThere = 0, rowByRow, byChance }) => {
  // Given a log with three sinks: one has caught up, one is in the middle of a batch while others write, one has nothing
  await burn(here, burnHere)
  for (const name of ['caught_up', 'amid', 'behind']) await here`select tracking.create_sink(${name}, 'ndjson', from_beginning => true)`
  const late = await openTransaction(here, 'Late')
  for (let n = 0; n < 30; n++) await write(here, `Old ${n}`)
  const delivered = { caught_up: await drain(here, 'caught_up'), amid: await take(here, 'amid', 7), behind: [] as string[] }
  await late.commit()
  await write(here, 'Older', 'than the dump')
  delivered.caught_up.push(...await drain(here, 'caught_up'))

  // When it is restored elsewhere, and events are written there before anybody says so
  const there = await restoreElsewhere(here, { burnFirst: burnThere, rowByRow, byChance })
  await write(there, 'New 1')
  await inSubtransaction(there, 'New 2')
  await writeAsPeople(there, 'Early')

  // Then no sink is read on, made or rewound, and nothing is dropped
  for (const statement of [`lease_batch('caught_up', 'test')`, `create_sink('more', 'ndjson')`, `rewind_sink('amid', '-infinity')`, `drop_partitions('0')`]) {
    expect(await failureOf(there.unsafe(`select tracking.${statement}`))).toMatchObject({ code: '55000', message: 'log_restored' })
  }
  expect((await there`select epoch, event from events where event like 'New %' order by event`).map(({ epoch }) => epoch)).toEqual([1, 1])

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

  // And it is said once
  expect(await failureOf(there`select tracking.raise_epoch()`)).toMatchObject({ code: '55000', message: 'log_not_restored' })

  // And a replay has all of it, the old generation first
  await there`select tracking.rewind_sink('amid', '-infinity')`
  expect(await drain(there, 'amid')).toEqual(all)
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
  await burn(here, 30_000)
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
  const there = await restoreElsewhere(here, {})
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

/** Uses up ids of transactions. */
async function burn(sql: Sql, count: number): Promise<void> {
  await sql.unsafe(`do $$ begin for n in 1..${count} loop perform pg_current_xact_id(); commit; end loop; end $$`)
}

// What a dump holds besides the schema; tracking.events_* are under public.events.
const tables = ['public.events', 'public.build_requests', 'tracking.sinks', 'tracking.cursors', 'tracking.undelivered', 'tracking.log']

/**
 * Restores a dump of the log's tables into a database of the other cluster: the chapters, then the rows, each table in
 * a transaction, or each row in one, as `pg_dump --inserts` would have it.
 */
async function restoreElsewhere(from: Sql, { burnFirst = 0, rowByRow, byChance, keepsLog }: Partial<Way> & { burnFirst?: number, keepsLog?: boolean }): Promise<Sql> {
  const name = `restored_${databases++}`
  const admin = connect(serverUrl, { max: 1 })
  await admin.unsafe(`create database ${name} template template`)
  await admin.end()
  const sql = connectTo(inDatabase(serverUrl, name))
  await burn(sql, burnFirst)
  const chosen = tables.filter((table) => !keepsLog || table !== 'tracking.log')
  const restore = connect(inDatabase(serverUrl, name), { max: 1 })
  await restore`set session_replication_role = replica`
  await restore.unsafe(`truncate ${chosen.join(', ')} cascade`)
  if (byChance) await burn(restore, await oldest(from) - await next(restore))
  for (const table of chosen) {
    const rows = await from.unsafe<{ row: string }[]>(`select row_to_json(t)::text as row from ${table} as t`)
    const insert = (tx: Pick<Sql, 'unsafe'>, row: string) => tx.unsafe(`insert into ${table} select * from json_populate_record(null::${table}, $1::text::json)`, [row])
    if (rowByRow) for (const { row } of rows) await insert(restore, row)
    else await restore.begin(async (tx) => { for (const { row } of rows) await insert(tx as unknown as Sql, row) })
  }
  await restore.end()
  return sql
}

const oldest = async (sql: Sql): Promise<number> => (await sql`select txid::text::float8 as id from events order by txid limit 1`)[0]?.id
const next = async (sql: Sql): Promise<number> => (await sql`select pg_snapshot_xmax(pg_current_snapshot())::text::float8 as id`)[0]?.id

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
  const [row] = await sql<{ batch: Batch | null }[]>`select tracking.lease_batch(${sink}, 'test', ${size}) as batch`
  if (!row?.batch) return []
  await sql`select tracking.complete_batch(${sink}, ${row.batch.shard}, ${row.batch.lease})`
  return row.batch.events.map(({ event_id }) => event_id)
}

async function drain(sql: Sql, sink: string): Promise<string[]> {
  const all: string[] = []
  for (let ids = await take(sql, sink, 10); ids.length > 0; ids = await take(sql, sink, 10)) all.push(...ids)
  return all
}
