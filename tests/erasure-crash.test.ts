import type { Sql } from 'postgres'
import { expect, test } from 'vitest'
import { connect, localPassword } from '../src/database.ts'
import { freePort, startPostgres, type PostgresServer } from '../src/postgres.ts'
import { orgs, people } from './demo.ts'
import { logOf } from './log.ts'
import { startWorker, until } from './workers.ts'
import { furnish, temporaryFolder } from './world.ts'

const CRASHES = 4
const EVENTS = 600

test('an erasure that crashes again and again comes to its end: nothing is forgotten, and nothing counted twice', async () => {
  const database = await startDatabase()
  const { url, sql } = database
  let worker: Awaited<ReturnType<typeof startWorker>> | undefined
  try {
    // Given a person's events, an hour apart, among another's, half of which a sink had; and letters
    const log = logOf(sql)
    await log.createSink('sink', { shards: 2 })
    await spread(sql, people.ada, EVENTS)
    await spread(sql, people.bob, 100)
    for (let n = 0; n < 2; n++) {
      const batch = (await log.lease('sink', 200))!
      await log.complete(batch, [{ event: batch.events[0], error: '400' }])
    }
    await log.rollUp()
    const others = await sql`select * from tracking.activity where actor_id = ${people.bob} order by hour`
    const [{ letters } = { letters: 0 }] = await sql<{ letters: number }[]>`
      select count(*)::int as letters from tracking.undelivered where event ->> 'actor_id' = ${people.ada}`

    // When they are erased, and every process of Postgres is killed in the middle of it, again and again
    const [asked] = await sql`select erasure, done from tracking.erase_actor(${people.ada}, 10)`
    expect(asked!.done).toBe(false)
    const left: number[] = []
    for (let crash = 0; crash < CRASHES; crash++) {
      const biting = bite(url, asked!.erasure, 10)
      const [{ n: before } = { n: 0 }] = await sql<{ n: number }[]>`select events::int as n from tracking.erasures`
      await until(async () => (await sql`select from tracking.erasures where events > ${before + 20}`).length)
      await database.crash()
      await biting
      const [counts] = await sql`
        select (select count(*)::int from events where actor_id = ${people.ada}) as left, e.events::int
        from   tracking.erasures as e`
      expect(counts!.left + counts!.events).toBe(EVENTS)
      left.push(counts!.left)
      expect(await log.gaps()).toEqual([])
      expect(await log.rollupErrors()).toEqual([])
    }
    expect(left.at(-1)).toBeGreaterThan(0)
    expect(left).toEqual([...new Set(left)].toSorted((a, b) => b - a))

    // Then a worker takes it up where it stopped, and it ends with the right count
    worker = await startWorker({ databaseUrl: url, jobs: true, sinks: [] })
    await until(async () => (await sql`select from tracking.erasures where erased_at is not null`).length)
    expect(await sql`select events::int, letters::int from tracking.erasures`).toEqual([{ events: EVENTS, letters }])
    expect(await sql`select distinct actor_id from events`).toEqual([{ actor_id: people.bob }])
    expect(await sql`select * from tracking.activity order by hour`).toEqual(others)
    expect(await log.gaps()).toEqual([])
    await log.drain('sink')
    expect(await log.gaps()).toEqual([])
  } finally {
    await worker?.stop()
    await database.close()
  }
}, 120_000)

/** Does bites until the database is gone. */
async function bite(url: string, erasure: string, size: number): Promise<void> {
  const sql = connect(url, { max: 1, backoff: false, fetch_types: false })
  try {
    for (;;) await sql`select * from tracking.continue_erasure(${erasure}, ${size})`
  } catch (error) {
    expect(String((error as { code?: string }).code)).toMatch(lostConnection)
  } finally {
    await sql.end({ timeout: 0 })
  }
}

/** Writes events an hour apart, in the months before this one, for an org and not. */
async function spread(sql: Sql, actor: string, count: number): Promise<void> {
  await sql`
    insert into events (scope_id, org_id, actor_id, occurred_at, event_id, event, source)
    select coalesce(o.org, ${actor}), o.org, ${actor}, tracking.event_time(i.id), i.id, 'Event', 'service'
    from   generate_series(1, ${count}) as n,
           lateral (select case when n % 3 = 0 then ${orgs.acme}::uuid end) as o (org),
           lateral tracking.new_event_id(now() - n * interval '1 hour') as i (id)`
}

async function startDatabase() {
  const folder = await temporaryFolder()
  const port = await freePort()
  const url = `postgres://postgres:${localPassword}@127.0.0.1:${port}/postgres`
  const start = () => startPostgres({ port, dataDir: folder.path })
  const sql = connect(url, { max: 1, fetch_types: false })
  let server: PostgresServer = await start()
  await furnish(sql, url)
  return {
    url, sql,
    /** Kills every process of the server, and starts it again on what the disk holds. */
    async crash() {
      await server.kill()
      server = await start()
    },
    async close() {
      await sql.end({ timeout: 1 })
      await server.stop()
      await folder.remove()
    },
  }
}

const lostConnection = /^(CONNECTION_(CLOSED|ENDED|DESTROYED)|CONNECT_TIMEOUT|ECONNREFUSED|ECONNRESET|EPIPE|57P0[123])$/
