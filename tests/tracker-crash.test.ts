import { expect, test, vi } from 'vitest'
import { publishableKey, startApi, type Api } from '../src/api.ts'
import { connect, localPassword } from '../src/database.ts'
import { freePort, startPostgres, type PostgresServer } from '../src/postgres.ts'
import { createTracker, type Stats } from '../src/tracker.ts'
import { people } from './demo.ts'
import { asLogin, furnish, temporaryFolder } from './world.ts'

const EVENTS = 10_000
const CRASHES = 20

test('10,000 events are 10,000 rows though the server is killed and started again 20 times while they are sent', async () => {
  const server = await startServer()
  try {
    // Given a program that tracks 10,000 events in a row
    const errors: string[] = []
    const tracker = createTracker({ url: server.url, publishableKey, apiKey: 'as_local_acme_admin' }, {
      flushAt: 50, flushInterval: 50, maxBatchSize: 50, maxQueueSize: EVENTS, requestTimeout: 5_000, retryDelay: 20, maxRetryDelay: 300,
      onError: ({ code }) => errors.push(code) })
    const done = ({ sent, duplicates }: Stats) => sent + duplicates
    let tracked = 0

    // When Postgres and the API over it are killed 20 times meanwhile
    for (let crash = 1; crash <= CRASHES; crash++) {
      for (; tracked < EVENTS * crash / CRASHES; tracked++) tracker.track(`Event ${tracked}`)
      const before = done(tracker.stats())
      const some = 50 + Math.random() * 250
      await vi.waitUntil(() => done(tracker.stats()) >= before + some, { timeout: 60_000, interval: 2 })
      await server.crash()
    }
    const stats = await tracker.shutdown(120_000)

    // Then each is there, once, by its actor
    const rows = await server.sql<{ event: string, actor_id: string }[]>`select event, actor_id from events`
    expect(new Set(rows.map(({ event }) => event)).size).toBe(EVENTS)
    expect(rows).toHaveLength(EVENTS)
    expect(new Set(rows.map(({ actor_id }) => actor_id))).toEqual(new Set([people.ada]))
    expect(stats).toMatchObject({ tracked: EVENTS, queued: 0, inFlight: 0, dropped: {} })
    expect(done(stats)).toBe(EVENTS)
    expect(errors).toEqual([])

    // And the crashes did interrupt
    expect(stats.retries).toBeGreaterThanOrEqual(CRASHES)
  } finally {
    await server.close()
  }
}, 240_000)

async function startServer() {
  const folder = await temporaryFolder()
  const [databasePort, apiPort] = [await freePort(), await freePort()]
  const url = `postgres://postgres:${localPassword}@127.0.0.1:${databasePort}/postgres`
  const start = () => startPostgres({ port: databasePort, dataDir: folder.path })
  const open = () => startApi({ port: apiPort, databaseUrl: asLogin(url, 'lite') })
  const sql = connect(url, { max: 1 })
  let postgres: PostgresServer | undefined = await start()
  let api: Api | undefined
  const close = async () => {
    await sql.end({ timeout: 1 })
    await api?.stop()
    await postgres?.stop()
    await folder.remove()
  }
  try {
    await furnish(sql, url)
    api = await open()
  } catch (error) {
    await close()
    throw error
  }
  return {
    url: api.url,
    sql,
    close,
    /** Kills every process of Postgres in the middle of what it does, and the API with it; starts both on what the disk holds. */
    async crash() {
      const gone = postgres!.kill()
      await Promise.all([gone, api!.stop()])
      postgres = await start()
      api = await open()
    },
  }
}
