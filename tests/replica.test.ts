import { execFile } from 'node:child_process'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Sql } from 'postgres'
import { connect, localPassword } from '../src/database.ts'
import { freePort, startPostgres, type PostgresServer } from '../src/postgres.ts'
import { until, writeEvents } from './workers.ts'
import { furnish, temporaryFolder } from './world.ts'

// A read replica does not know what is under way on the primary as the primary does.

let folder: { path: string, remove(): Promise<void> }
let servers: PostgresServer[] = []
let primary: Sql
let replica: Sql

beforeAll(async () => {
  folder = await temporaryFolder()
  const [first, second] = [join(folder.path, 'primary'), join(folder.path, 'replica')]
  const [port, replicaPort] = [await freePort(), await freePort()]
  servers.push(await startPostgres({ port, dataDir: first, parameters: { fsync: 'off' } }))
  primary = connect(urlOf(port))
  await furnish(primary, urlOf(port))

  const backup = await primary.reserve()
  await backup`select pg_backup_start('replica', true)`
  await mkdir(second)
  await promisify(execFile)('cp', ['-a', join(first, 'postgres'), second])
  await backup`select pg_backup_stop()`
  backup.release()
  await rm(join(second, 'postgres', 'postmaster.pid'))
  await writeFile(join(second, 'postgres', 'standby.signal'), '')
  const from = `host=127.0.0.1 port=${port} user=postgres password=${localPassword}`
  servers.push(await startPostgres({ port: replicaPort, dataDir: second, parameters: { fsync: 'off', primary_conninfo: from } }))
  replica = connect(urlOf(replicaPort))
})
afterAll(async () => {
  await Promise.all([primary, replica].map((sql) => sql?.end({ timeout: 1 })))
  for (const server of servers.toReversed()) await server.stop()
  await folder?.remove()
})

test('whoever reads on from a replica misses nothing that commits late, and reads nothing twice, there or on the primary', async () => {
  // Given a reader on the replica, one on the primary, and one that goes from one to the other
  await caughtUp()
  const [there, here] = [await readerOf(), await readerOf()]
  const wanderer = await readerOf()
  await there.next(replica)
  await here.next(primary)
  await wanderer.next(primary)

  // When a transaction writes early and commits late
  const late = await primary.reserve()
  await late`begin`
  await writeEvents(late, ['Late'])
  await writeEvents(primary, ['Early 1', 'Early 2'])
  await caughtUp()
  expect(await replica`select count(*)::int as n from events where event like 'Early %'`).toEqual([{ n: 2 }])
  await there.next(replica)
  await here.next(primary)
  for (const on of [replica, primary, replica]) await wanderer.next(on)
  await late`commit`
  late.release()
  await caughtUp()

  // Then each has each event once
  await there.next(replica)
  await here.next(primary)
  for (const on of [replica, primary, replica]) await wanderer.next(on)
  for (const reader of [there, here, wanderer]) expect(reader.got.toSorted()).toEqual(['Early 1', 'Early 2', 'Late'])
})

const urlOf = (port: number) => `postgres://postgres:${localPassword}@127.0.0.1:${port}/postgres`

/** Waits until the replica has all that the primary has. */
async function caughtUp(): Promise<void> {
  await primary`select pg_log_standby_snapshot()`
  const [{ at } = { at: '' }] = await primary<{ at: string }[]>`select pg_current_wal_lsn()::text as at`
  await until(async () => (await replica<{ there: boolean }[]>`select pg_last_wal_replay_lsn() >= ${at}::pg_lsn as there`)[0]?.there)
}

/** Somebody who reads on from where they were, wherever. */
async function readerOf() {
  let after: unknown = null
  const got: string[] = []
  const next = async (on: Sql) => {
    const [row] = await on<{ answer: { cursor: never, events: { event: string }[] } }[]>`select read_events(${on.json(after as never)}) as answer`
    after = row!.answer.cursor
    got.push(...row!.answer.events.map(({ event }) => event))
  }
  return { got, next }
}
