import { randomUUID } from 'node:crypto'
import type { Sql } from 'postgres'
import { expect, test, vi } from 'vitest'
import { connect, localPassword } from '../src/database.ts'
import { freePort, startPostgres, type PostgresServer } from '../src/postgres.ts'
import { uuidV7 } from './demo.ts'
import { as, person, trackEvent, trackEvents } from './sessions.ts'
import { asLogin, furnish, temporaryFolder } from './world.ts'

const CLIENTS = 16
const CRASHES = 20

test('what was acknowledged is there once after 20 crashes, and what was not is there once after it is sent again', async () => {
  const database = await startDatabase()
  try {
    // Given 16 clients that send without a pause, and send again, with the same ids, what got no answer
    const clients = Array.from({ length: CLIENTS }, () => new Client(database))
    const sending = Promise.all(clients.map((client) => client.run()))

    // When Postgres is killed and started again 20 times while they do
    for (let crash = 0; crash < CRASHES; crash++) {
      const before = acknowledgedBy(clients)
      const some = 10 + Math.floor(Math.random() * 100)
      await Promise.race([sending, vi.waitUntil(() => acknowledgedBy(clients) >= before + some, { timeout: 30_000, interval: 5 })])
      await database.crash()
    }
    clients.forEach((client) => client.finish())
    await sending

    // Then the log holds what was acknowledged, each once and as its sender's, and nothing else
    const rows = await database.sql`select actor_id || ' ' || event_id as event from events`
    const kept = new Set(rows.map((row) => row.event))
    const acknowledged = new Set(clients.flatMap((client) => client.acknowledged))
    expect({
      lost: [...acknowledged].filter((event) => !kept.has(event)).length,
      doubled: rows.length - kept.size,
      unasked: [...kept].filter((event) => !acknowledged.has(event)).length,
    }).toEqual({ lost: 0, doubled: 0, unasked: 0 })

    // And the crashes did interrupt, also between a commit and its answer
    expect(sum(clients.map((client) => client.interruptions))).toBeGreaterThanOrEqual(CRASHES)
    expect(sum(clients.map((client) => client.keptUnanswered))).toBeGreaterThan(0)
  } finally {
    await database.close()
  }
}, 120_000)

/** Sends events as one person, in turn alone and in batches, each until it is acknowledged. */
class Client {
  /** `<actor> <event id>` of each event that was acknowledged. */
  readonly acknowledged: string[] = []
  interruptions = 0
  keptUnanswered = 0
  private readonly actor = randomUUID()
  private finishing = false

  constructor(private readonly database: Database) {}

  finish(): void {
    this.finishing = true
  }

  async run(): Promise<void> {
    for (let round = 0; !this.finishing; round++) {
      const events = Array.from({ length: round % 2 === 0 ? 1 : 5 }, () => (
        { event: 'Survives', tracking_version: 2, event_id: uuidV7() }))
      await this.sendUntilAcknowledged(events)
      this.acknowledged.push(...events.map(({ event_id }) => `${this.actor} ${event_id}`))
    }
  }

  private async sendUntilAcknowledged(events: { event_id: string }[]): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const sql = await this.database.connected()
      try {
        const duplicates = await this.send(sql, events)
        if (attempt === 1) expect(duplicates).toBe(0)
        this.keptUnanswered += duplicates
        return
      } catch (error) {
        if (!isLostConnection(error)) throw error
        this.interruptions++
      }
    }
  }

  /** @returns how many of the events were there already. */
  private send(sql: Sql, events: object[]): Promise<number> {
    return as(sql, person(this.actor), async (tx) => {
      if (events.length === 1) return (await trackEvent(tx, events[0])).duplicate ? 1 : 0
      const answer = await trackEvents(tx, events)
      expect(answer.accepted + answer.duplicates).toBe(events.length)
      return answer.duplicates
    })
  }
}

type Database = {
  /** As superuser, after the last crash. */
  readonly sql: Sql
  /** A connection as `authenticator`, to the server that runs now or will next. */
  connected(): Promise<Sql>
  /** Kills every process of the server, and starts it again on what the disk holds. */
  crash(): Promise<void>
  close(): Promise<void>
}

async function startDatabase(): Promise<Database> {
  const folder = await temporaryFolder()
  const port = await freePort()
  const url = `postgres://postgres:${localPassword}@127.0.0.1:${port}/postgres`
  const start = () => startPostgres({ port, dataDir: folder.path })
  // fetch_types asks the catalog behind one's back, and nobody would catch that query's end in a crash.
  const open = () => connect(asLogin(url, 'authenticator'), { max: CLIENTS, backoff: false, fetch_types: false })
  const sql = connect(url, { max: 1 })
  let server: PostgresServer = await start()
  await furnish(sql, url)
  let clients: Promise<Sql> = Promise.resolve(open())
  return {
    sql,
    connected: () => clients,
    async crash() {
      const before = await clients
      clients = server.kill().then(start).then((started) => { server = started; return open() })
      await Promise.all([clients, before.end({ timeout: 0 })])
    },
    async close() {
      await (await clients).end({ timeout: 1 })
      await sql.end({ timeout: 1 })
      await server.stop()
      await folder.remove()
    },
  }
}

// Whatever else goes wrong is a failure of the test.
const lostConnection = /^(CONNECTION_(CLOSED|ENDED|DESTROYED)|CONNECT_TIMEOUT|ECONNREFUSED|ECONNRESET|EPIPE|57P0[123])$/
const isLostConnection = (error: unknown): boolean => lostConnection.test(String((error as { code?: string }).code))

const sum = (numbers: number[]): number => numbers.reduce((total, number) => total + number, 0)
const acknowledgedBy = (clients: Client[]): number => sum(clients.map((client) => client.acknowledged.length))
