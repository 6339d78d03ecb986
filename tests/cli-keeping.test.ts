import { appendFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import type { Sql } from 'postgres'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { run, start, type Run } from './cli.ts'
import { orgs, people } from './demo.ts'
import { logOf, type Log } from './log.ts'
import { createWorld, temporaryFolder, type World } from './world.ts'

// `actorscope export` and `erase`, as processes of their own.

let world: World
let sql: Sql
let log: Log
let folder: Awaited<ReturnType<typeof temporaryFolder>>

beforeAll(async () => {
  world = await createWorld()
  sql = world.sql
  log = logOf(sql)
  folder = await temporaryFolder()
  await sql`select tracking.make_partition('2025-10-01')`
})
beforeEach(async () => {
  await sql`delete from tracking.sinks`
  await sql`delete from tracking.erasures`
  await sql`truncate public.events, tracking.exports`
  await folder.remove()
  await mkdir(folder.path)
})
afterAll(async () => {
  await world.close()
  await folder.remove()
})

const command = (...args: string[]) => run(args, { env: { DATABASE_URL: world.databaseUrl } })
const file = (name: string) => join(folder.path, name)
const files = () => readdir(folder.path)

describe('actorscope export month', () => {
  test('writes Parquet that DuckDB reads as the log has it, column by column and row by row', async () => {
    // Given a month with every kind of value, at its first and its last moment, and other months beside it
    await writeEveryKind()
    const { code, stderr } = await command('export', 'month', '2025-10', '--to', file('events.parquet'))
    expect([code, stderr]).toEqual([0, `${file('events.parquet')} has 2,004 events of 2025-10.\n`])

    // Then each row is what Postgres has: as texts, and as types
    const duck = await (await DuckDBInstance.create()).connect()
    await duck.run(`set timezone = 'UTC'`)
    const rows = await duck.runAndReadAll(`
      select scope_id, strftime(occurred_at, '%Y-%m-%d %H:%M:%S.%f') as occurred_at, event_id, org_id,
             actor_id, app_id, api_key_id, event, channel, description, icon, parser, notify, tags, context,
             tracking_version, source, clock_skew, strftime(received_at, '%Y-%m-%d %H:%M:%S.%f') as received_at,
             txid::varchar as txid, epoch
      from   '${file('events.parquet')}'`)
    const expected = await sql`
      select scope_id::text, to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') as occurred_at, event_id::text,
             org_id::text, actor_id::text, app_id, api_key_id::text, event, channel, description, icon, parser, notify,
             tags::text, context::text, tracking_version, source, clock_skew::text,
             to_char(received_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') as received_at, txid::text, epoch
      from   events where occurred_at >= '2025-10-01Z' and occurred_at < '2025-11-01Z'`
    const inOrder = (all: readonly any[]) => all.map((row) => ({ ...row })).toSorted((a, b) => (a.event_id < b.event_id ? -1 : 1))
    const [read, written] = [inOrder(rows.getRowObjectsJson()), inOrder(expected)]
    expect(read.length).toBe(2004)
    for (const [n, row] of read.entries()) expect(row).toEqual(written[n])
    const types = await duck.runAndReadAll(`describe select * from '${file('events.parquet')}'`)
    expect(Object.fromEntries(types.getRowObjectsJson().map(({ column_name, column_type }) => [column_name, column_type]))).toEqual({
      scope_id: 'UUID', occurred_at: 'TIMESTAMP WITH TIME ZONE', event_id: 'UUID', org_id: 'UUID', actor_id: 'UUID', app_id: 'VARCHAR',
      api_key_id: 'UUID', event: 'VARCHAR', channel: 'VARCHAR', description: 'VARCHAR', icon: 'VARCHAR', parser: 'VARCHAR', notify: 'BOOLEAN',
      tags: 'VARCHAR', context: 'VARCHAR', tracking_version: 'INTEGER', source: 'VARCHAR', clock_skew: 'VARCHAR',
      received_at: 'TIMESTAMP WITH TIME ZONE', txid: 'BIGINT', epoch: 'INTEGER' })
    duck.closeSync()
    expect((await stat(file('events.parquet'))).mode & 0o777).toBe(0o600)
    expect(await files()).toEqual(['events.parquet'])
  })

  test('writes lines of JSON, a row each, as the file sink does', async () => {
    await writeEveryKind()
    const { code, stdout } = await command('export', 'month', '2025-10', '--to', file('events.ndjson'), '--json')
    expect([code, JSON.parse(stdout)]).toEqual([0, { month: '2025-10', file: file('events.ndjson'), events: 2004 }])
    const lines = (await readFile(file('events.ndjson'), 'utf8')).trimEnd().split('\n')
    const expected = await sql.begin(async (tx) => {
      await tx`set local timezone = 'UTC'`
      return tx`select row_to_json(e)::text as line from events as e where occurred_at >= '2025-10-01Z' and occurred_at < '2025-11-01Z'`
    })
    expect(lines.toSorted()).toEqual(expected.map(({ line }) => line).toSorted())
  })

  test('notes what it wrote, so that the month may go', async () => {
    await log.write('2025-10', { channel: 'audit' }, 'Audit')
    await sql`insert into tracking.retention values ('*', '1 month', true)`
    expect(await sql`select dropped from tracking.apply_retention(1) where partition = 'tracking.events_2025_10'`).toEqual([{ dropped: false }])
    await command('export', 'month', '2025-10', '--to', file('events.parquet'))
    expect(await sql`select partition, file, events::int, exported_by from tracking.exports`).toEqual([
      { partition: 'tracking.events_2025_10', file: file('events.parquet'), events: 1, exported_by: 'postgres' }])
    expect(await sql`select dropped from tracking.apply_retention(1) where partition = 'tracking.events_2025_10'`).toEqual([{ dropped: true }])
    await sql`delete from tracking.retention`
    await sql`select tracking.make_partition('2025-10-01')`
  })

  test('writes a month without an event, too', async () => {
    expect((await command('export', 'month', '2025-10', '--to', file('none.parquet'))).code).toBe(0)
    const duck = await (await DuckDBInstance.create()).connect()
    expect((await duck.runAndReadAll(`select count(*)::integer as n from '${file('none.parquet')}'`)).getRowObjectsJson()).toEqual([{ n: 0 }])
    duck.closeSync()
  })

  test.each<[string, string[], () => Promise<unknown>, number, RegExp]>([
    ['a file that is there', ['2025-10', '--to', 'there.parquet'], () => writeFile(file('there.parquet'), 'mine'), 1,
      /^file_exists: .*there\.parquet is there already\. \(Name another, or move it away\.\)\n$/],
    ['a folder that is not', ['2025-10', '--to', 'nowhere/x.ndjson'], async () => {}, 1, /^file_unwritable: .*ENOENT.*\(Name another file\.\)\n$/],
    ['a month that the log does not have', ['2020-01', '--to', 'x.ndjson'], async () => {}, 1, /^42704: The log has no month 2020-01\./],
    ['no month', ['october', '--to', 'x.ndjson'], async () => {}, 2, /a year and a month, such as 2025-10/],
    ['another kind of file', ['2025-10', '--to', 'x.csv'], async () => {}, 2, /a file that ends in \.parquet or \.ndjson/],
  ])('refuses %s', async (_, [month = '', to = '', name = ''], given, expected, told) => {
    await given()
    const before = await files()
    const { code, stderr } = await command('export', 'month', month, to, file(name))
    expect([code, stderr]).toEqual([expected, expect.stringMatching(told)])
    expect(await files()).toEqual(before)
    if (before.length > 0) expect(await readFile(file('there.parquet'), 'utf8')).toBe('mine')
  })

  test('refuses a month that has no partition yet, and says where its events are', async () => {
    await sql`
      insert into events (scope_id, occurred_at, event_id, actor_id, event, source)
      select ${people.ada}, tracking.event_time(i.id), i.id, ${people.ada}, 'Old', 'service' from tracking.new_event_id('2001-05-03Z') as i (id)`
    expect(await command('export', 'month', '2001-05', '--to', file('may.ndjson'))).toMatchObject({ code: 1, stderr:
      '42704: The log has no month 2001-05 yet: what happened then (1) waits in tracking.events_default. (Make it: select tracking.make_partitions();)\n' })
    expect(await files()).toEqual([])
    await sql`select tracking.make_partitions()`
    expect((await command('export', 'month', '2001-05', '--to', file('may.ndjson'))).code).toBe(0)
    await sql`drop table tracking.events_2001_05`
  })

  test('does not take a file for whole that lacks a row', async () => {
    await log.write('2025-10', ...Array.from({ length: 50_000 }, (_, n) => `Event ${n}`))
    const running = start(['export', 'month', '2025-10', '--to', file('events.ndjson')], { env: { DATABASE_URL: world.databaseUrl } })
    await expect.poll(() => stat(file('events.ndjson.part')).then(({ size }) => size, () => 0), { interval: 2, timeout: 60_000 }).toBeGreaterThan(0)
    await appendFile(file('events.ndjson.part'), '\n') // as if somebody else wrote to it
    expect(await running.exited).toBe(1)
    expect(running.stderr()).toMatch(/^file_incomplete: .*events\.ndjson has 50001 rows of 50000\./)
    expect(await files()).toEqual([])
  })
})

describe('actorscope export actor', () => {
  test('writes all that is held about a person, a line for each row', async () => {
    await log.write('2025-10', { actor: people.bob }, 'His')
    await log.write('2025-10', { actor: people.bob, org: orgs.acme }, 'His, for Acme')
    await log.write('2025-10', 'Hers')
    const { code, stderr } = await command('export', 'actor', people.bob, '--to', file('bob.ndjson'))
    expect([code, stderr]).toEqual([0, `${file('bob.ndjson')} has 3 rows.\n`])
    const lines = (await readFile(file('bob.ndjson'), 'utf8')).trimEnd().split('\n').map((line) => JSON.parse(line))
    expect(lines.map(({ kind, data }) => [kind, data.event ?? data.role])).toEqual([
      ['event', 'His'], ['event', 'His, for Acme'], ['role', 'viewer']])
  })
})

const endings: [string, (running: Run) => unknown, number][] = [
  ['it is interrupted', (running) => running.process.kill('SIGINT'), 130],
  ['the connection is cut', () => sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'actorscope'`, 1],
]
const exports: [string, string[]][] = [['month', ['month', '2025-10']], ['actor', ['actor', people.ada]]]

// At several moments: while rows are read, and while they are written.
describe.each(endings)('an export leaves nothing behind where %s', (_, end, code) => {
  test.each(exports.flatMap(([what, args]) => [0, 30_000].map((bytes) => [what, bytes, args] as const)))('%s, after %d bytes', async (_, bytes, args) => {
    await log.write('2025-10', ...Array.from({ length: 30_000 }, (_, n) => `Event ${n}`))
    const running = start(['export', ...args, '--to', file('events.ndjson')], { env: { DATABASE_URL: world.databaseUrl } })
    await expect.poll(() => stat(file('events.ndjson.part')).then(({ size }) => size, () => -1), { interval: 2, timeout: 60_000 }).toBeGreaterThanOrEqual(bytes)
    await end(running)
    expect(await running.exited).toBe(code)
    expect(await files()).toEqual([])
    expect(await sql`select * from tracking.exports`).toEqual([])
  })
})

describe('actorscope erase', () => {
  test('says in a dry run how much there is, and erases nothing', async () => {
    await log.write('2025-10', { actor: people.nik }, 'One', 'Two')
    expect(await command('erase', 'actor', people.nik, '--dry-run')).toMatchObject({ code: 0, stdout: '', stderr: 'There are 2 events. Nothing was changed.\n' })
    expect(JSON.parse((await command('erase', 'actor', people.nik, '--dry-run', '--json')).stdout)).toEqual({
      actor: people.nik, events: 2, builds: 0, letters: 0, api_keys: 0, roles: 0, dry_run: true })
    expect((await command('erase', 'org', orgs.evil, '--dry-run')).stderr).toBe('There are 0 events and 1 role. Nothing was changed.\n')
    expect(await log.names()).toEqual(['One', 'Two'])
    expect(await sql`select * from tracking.erasures`).toEqual([])
  })

  test('erases nothing where nobody said that it is meant', async () => {
    await log.write('2025-10', { actor: people.nik }, 'One')
    expect(await command('erase', 'actor', people.nik)).toMatchObject({
      code: 1, stderr: 'not_confirmed: This erases 1 event, for good. (Say --yes where nobody can be asked.)\n' })
    expect(await log.names()).toEqual(['One'])
  })

  test('erases a person, and says who is told of it, and who cannot be', async () => {
    await log.write('2025-10', { actor: people.nik }, 'One', 'Two')
    await sql`select tracking.create_sink('archive', 'ndjson'), tracking.create_sink('hook', 'webhook', '{"url": "http://127.0.0.1:1"}')`
    expect(await command('erase', 'actor', people.nik, '--yes')).toMatchObject({
      code: 0, stderr: 'Erased: 2 events, and all else. A worker tells hook. archive cannot be told: see to it yourself.\n' })
    expect(await log.names()).toEqual([])
    const again = await command('erase', 'actor', people.nik.toUpperCase(), '--yes', '--json')
    expect(JSON.parse(again.stdout)).toEqual({ actor: people.nik, erasure: expect.any(String), events: 0, sinks: ['archive', 'hook'] })
  })

  test('waits for a batch that is under way; interrupted, it is gone on with', async () => {
    await log.createSink('archive')
    await log.write('2025-10', { actor: people.nik }, 'One', 'Two')
    const batch = await log.lease('archive')
    const running = start(['erase', 'actor', people.nik, '--yes'], { env: { DATABASE_URL: world.databaseUrl } })
    await expect.poll(() => sql`select from tracking.erasures`, { timeout: 60_000 }).toHaveLength(1)
    running.process.kill('SIGINT')
    expect(await running.exited).toBe(130)
    expect(running.stderr()).toBe('Interrupted: a worker, or the same command, goes on with it.\n')
    await log.complete(batch)
    expect((await command('erase', 'actor', people.nik, '--yes')).code).toBe(0)
    expect(await sql`select events::int from tracking.erasures`).toEqual([{ events: 2 }])
    expect(await log.gaps()).toEqual([])
  })

  test.each([['actor', 'ada'], ['org', '123']])('takes no %s that is no UUID', async (subject, id) => {
    expect(await command('erase', subject, id, '--yes')).toMatchObject({ code: 2, stderr: expect.stringContaining('It is no UUID.') })
  })
})

/** Writes 2,004 events of October 2025, at its ends and with every kind of value, and some of other months. */
async function writeEveryKind(): Promise<void> {
  await sql`
    insert into events (
      scope_id, occurred_at, event_id, org_id, actor_id, app_id, api_key_id, event, channel, description, icon, parser, notify,
      tags, context, tracking_version, source, clock_skew, received_at)
    select ${orgs.acme}, tracking.event_time(i.id), i.id, ${orgs.acme}, ${people.ada}, 'com.acme.app', '20000000-0000-4000-8000-000000000001',
           t.name, 'übung', E'line\\n"two" \\\\', '📄', 'markdown', true,
           '{"n": 12345678901234567890.123456789, "deep": {"a": [1, null, "ä"]}, "app_id": "com.acme.app"}', '{"big": 1e300}', 1, 'client',
           interval '1 day 02:03:04.000005', '2025-11-05 09:30:00.123456Z'
    from   (values ('First', '2025-10-01Z'::timestamptz), ('Last', '2025-10-31 23:59:59.999Z'), ('Before', '2025-09-30 23:59:59.999Z'), ('After', '2025-11-01Z')) as t (name, at),
           lateral tracking.new_event_id(t.at) as i (id)`
  await sql`
    insert into events (scope_id, occurred_at, event_id, org_id, actor_id, event, source)
    select ${orgs.acme}, tracking.event_time(i.id), i.id, ${orgs.acme}, null, 'Nobody''s', 'service' from tracking.new_event_id('2025-10-15Z') as i (id)`
  await sql`
    insert into events (scope_id, occurred_at, event_id, actor_id, event, tags, source)
    select ${people.bob}, tracking.event_time(i.id), i.id, ${people.bob}, 'Large', jsonb_build_object('blob', repeat('x', 30000)), 'service'
    from   tracking.new_event_id('2025-10-16Z') as i (id)`
  await log.write('2025-10', { actor: people.bob }, ...Array.from({ length: 2000 }, (_, n) => `Event ${n}`))
}
