import type { Sql, TransactionSql } from 'postgres'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { connect } from '../src/database.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { as, holderOf, nobody, person, service, trackEvent, trackEvents, type Answer, type Caller } from './sessions.ts'
import { asLogin, cloneDatabase, templates, type Clone } from './world.ts'

const CONNECTIONS = 50

let clone: Clone
/** As superuser. */
let sql: Sql
/** The Data API's login, by 50 connections. */
let api: Sql

beforeAll(async () => {
  clone = await cloneDatabase(templates.world)
  sql = connect(clone.databaseUrl, { max: 4 })
  api = connect(asLogin(clone.databaseUrl, 'authenticator'), { max: CONNECTIONS })
})

afterAll(async () => {
  await Promise.all([api.end({ timeout: 1 }), sql.end({ timeout: 1 })])
  await clone.drop()
})

beforeEach(() => sql`delete from events`)

describe('50 connections that send one event id at once', () => {
  test.each([
    ['now', new Date()],
    ['in the last millisecond of a month', new Date(startOfMonth().getTime() - 1)],
    ['in the first millisecond of a month', startOfMonth()],
    ['in the last millisecond of a month that has a partition', new Date(startOfMonth(-1).getTime() - 1)],
    ['in the first millisecond of a month that has a partition', startOfMonth(-2)],
  ])('%s, in sessions of all time zones, write one row and are all answered ok', async (_when, at) => {
    await makePartitionOf(startOfMonth(-2))
    const id = uuidV7(at)
    const answers = await atOnce(fifty(person(people.ada)), async (tx, n) => {
      await tx.unsafe(`set local timezone = '${timeZones[n % timeZones.length]}'`)
      return trackEvent(tx, { event: 'Once', event_id: id, tracking_version: 2, org_id: orgs.acme })
    })
    expectOneAnd49Duplicates(answers, id)
    expect(await sql`select event_id, occurred_at from events`).toEqual([{ event_id: id, occurred_at: at }])
  })

  test('as a foreign id with a time written in 50 offsets, write one row', async () => {
    const at = startOfMonth()
    const answers = await atOnce(fifty(person(people.ada)), async (tx, n) => {
      await tx.unsafe(`set local timezone = '${timeZones[n % timeZones.length]}'`)
      return trackEvent(tx, { event: 'Once', event_id: 'order-1', timestamp: withOffset(at, (n - 25) * 30) })
    })
    expectOneAnd49Duplicates(answers, answers[0]!.event_id)
    expect(await sql`select occurred_at from events`).toEqual([{ occurred_at: at }])
  })

  test('as batches, write one row and call 49 duplicates', async () => {
    const id = uuidV7()
    const answers = await atOnce(fifty(person(people.ada)), (tx) => trackEvents(tx, [{ event: 'Once', event_id: id }]))
    expect(answers.map((a) => a.results[0]?.result).sort()).toEqual([...Array(49).fill('duplicate'), 'ok'])
    expect(await sql`select event_id from events`).toEqual([{ event_id: id }])
  })

  test('for 50 people without an org write 50 rows: one person\'s id is nothing to another', async () => {
    const id = uuidV7()
    const crowd = Array.from({ length: CONNECTIONS }, (_, n) => `30000000-0000-4000-8000-0000000000${String(n).padStart(2, '0')}`)
    const answers = await atOnce(crowd.map(person), (tx) => trackEvent(tx, { event: 'Once', event_id: id, tracking_version: 2 }))
    expect(answers.every((answer) => answer.status === 'ok' && !answer.duplicate)).toBe(true)
    expect((await sql`select actor_id from events order by 1`).map((row) => row.actor_id)).toEqual(crowd)
  })

  test('while the first to come has not committed, wait for it; where it rolls back, one of them writes the row', async () => {
    const id = uuidV7()
    const send = (tx: TransactionSql) => trackEvent(tx, { event: 'Once', event_id: id })
    let others: Promise<Answer[]> | undefined
    await as(api, person(people.ada), async (tx) => {
      expect(await send(tx)).toEqual({ status: 'ok', event_id: id })
      others = Promise.all(Array.from({ length: CONNECTIONS - 1 }, () => as(api, person(people.ada), send)))
      await waitingSessions(CONNECTIONS - 1)
      throw new Error('rolled back')
    }).catch((error: Error) => expect(error.message).toBe('rolled back'))
    expect((await others!).filter((answer) => !answer.duplicate)).toEqual([{ status: 'ok', event_id: id }])
    expect(await sql`select event_id from events`).toEqual([{ event_id: id }])
  })

  test('half of them by writing to the table, write one row: exactly one is told that it was the first', async () => {
    const id = uuidV7()
    const outcomes = await atOnce(fifty(person(people.ada)), async (tx, n) => {
      if (n % 2 === 0) return (await trackEvent(tx, { event: 'Once', event_id: id })).duplicate ? 'duplicate' : 'first'
      return insertEvent(tx, id, people.ada).then(() => 'first', (error: { code: string }) => error.code)
    }, { evenIfRefused: true })
    expect(outcomes.filter((outcome) => outcome === 'first')).toHaveLength(1)
    expect(new Set(outcomes.filter((_, n) => n % 2 === 1 && outcomes[n] !== 'first'))).toEqual(new Set(['23505']))
    expect(await sql`select event_id from events`).toEqual([{ event_id: id }])
  })
})

describe('batches with the same events', () => {
  test.each([
    ['of one person', [person(people.ada), person(people.ada)]],
    ['of two people in one org', [person(people.ada), person(people.bob)]],
    ['of a person and an API key', [person(people.ada), holderOf('as_local_acme_admin')]],
  ])('%s, sent in opposite orders again and again, never deadlock and write each event once', async (_who, callers) => {
    const rounds = Array.from({ length: 30 }, () => Array.from({ length: 100 }, (_, n) => (
      { event: 'Both', event_id: uuidV7(), tracking_version: 2, ...(n % 3 === 0 ? {} : { org_id: orgs.acme }) })))
    let accepted = 0
    for (const events of rounds) {
      const answers = await atOnce([...callers, ...callers], (tx, n) => trackEvents(tx, n % 2 === 0 ? events : events.toReversed()))
      accepted += answers.reduce((sum, answer) => sum + answer.accepted, 0)
      expect(answers.map((answer) => answer.dropped)).toEqual([0, 0, 0, 0])
    }
    const [{ rows, ids } = { rows: 0, ids: 0 }] = await sql<{ rows: number, ids: number }[]>`
      select count(*)::int as rows, count(distinct event_id)::int as ids from events`
    expect({ rows, ids }).toEqual({ rows: accepted, ids: 3000 })
  })
})

test('a rate limit counts what all connections send, and lets through no more', async () => {
  await sql`update tracking.settings set events_per_minute = 20`
  const outcomes = await atOnce(fifty(person(people.nik)), (tx) => (
    trackEvent(tx, { event: 'Many' }).then((answer) => answer.status, (error: Error) => error.message)), { evenIfRefused: true })
  await sql`update tracking.settings set events_per_minute = null`
  const [{ rows } = { rows: 0 }] = await sql`select count(*)::int as rows from events`
  expect(outcomes.filter((outcome) => outcome === 'ok')).toHaveLength(rows)
  expect(new Set(outcomes)).toEqual(new Set(['ok', 'rate_limited']))
  expect(rows).toBeLessThanOrEqual(40) // where a minute ends meanwhile, twice the limit
})

describe('months without a partition', () => {
  test('lose nothing and refuse nobody while their partitions are made under the writers\' hands', async () => {
    const months = Array.from({ length: 40 }, (_, n) => startOfMonth(-12 - n))
    const sent: string[] = []
    const refusals: string[] = []
    let writing = true

    const refused = (error: { message: string }) => { refusals.push(error.message) }
    const makers = Promise.all(Array.from({ length: 2 }, async () => {
      while (writing) await as(api, service, (tx) => tx`select tracking.make_partitions()`).catch(unlessItGaveWay).catch(refused)
    }))
    await Promise.all(Array.from({ length: 8 }, async (_, writer) => {
      for (const month of months) {
        const ids = Array.from({ length: 5 }, (_, n) => uuidV7(new Date(month.getTime() + n)))
        await as(api, person(people.ada), (tx) => write(tx, writer % 4, ids)).then(() => sent.push(...ids), refused)
      }
    }))
    writing = false
    await makers
    await sql`select tracking.make_partitions()`

    expect([...new Set(refusals)]).toEqual([])
    expect((await sql`select event_id from events order by 1`).map((row) => row.event_id)).toEqual(sent.sort())
    expect(await sql`select * from tracking.partition_report`).toEqual([])
    const partitions = await sql`select inhrelid::regclass::text as name from pg_inherits where inhparent = 'events'::regclass`
    expect(partitions.map(({ name }) => name)).toEqual(expect.arrayContaining(months.map(partitionOf)))
  })

  test('let a transaction that has read the log write to it while their partition is to be made', async () => {
    const [first, second] = [0, 1].map((n) => uuidV7(new Date(startOfMonth(-100).getTime() + n)))
    await as(api, person(people.ada), (tx) => trackEvent(tx, { event: 'Old', event_id: first }))
    let maker: Promise<unknown> | undefined
    await as(api, person(people.ada), async (tx) => {
      expect(await tx`select event_id from events`).toEqual([{ event_id: first }])
      maker = as(api, service, (other) => other`select tracking.make_partitions()`).catch(unlessItGaveWay)
      await waitingSessions(1)
      expect(await trackEvent(tx, { event: 'Old', event_id: second })).toEqual({ status: 'ok', event_id: second })
    })
    await maker
    await sql`select tracking.make_partitions()`
    expect(await sql`select event_id, tableoid::regclass::text as partition from events order by 1`).toEqual(
      [first, second].map((event_id) => ({ event_id, partition: partitionOf(startOfMonth(-100)) })))
  })

  const partitionOf = (month: Date) => `tracking.events_${month.toISOString().slice(0, 7).replace('-', '_')}`

  // Behind a reader that takes its time, it gives up and leaves the month for its next run
  const unlessItGaveWay = (error: { code: string }) => { if (error.code !== '55P03') throw error }

  const write = async (tx: TransactionSql, way: number, ids: string[]): Promise<void> => {
    if (way === 0) for (const id of ids) expect(await trackEvent(tx, { event: 'Old', event_id: id })).not.toHaveProperty('duplicate')
    else if (way === 1) for (const id of ids) await insertEvent(tx, id, people.ada)
    else expect(await trackEvents(tx, ids.map((event_id) => ({ event: 'Old', event_id })))).toMatchObject({ accepted: 5 })
  }
})

describe('50 connections that serve everybody in turn', () => {
  type Claim = { org?: string, mayGroup: (caller: string) => boolean }
  const callers: Record<string, Caller & { actor?: string }> = {
    ada: { ...person(people.ada), actor: people.ada },
    bob: { ...person(people.bob), actor: people.bob },
    cyd: { ...person(people.cyd), actor: people.cyd },
    eve: { ...person(people.eve), actor: people.eve },
    nik: { ...person(people.nik), actor: people.nik },
    key: { ...holderOf('as_local_acme_admin'), actor: people.ada },
    revoked: holderOf('as_local_revoked'),
    nobody,
  }
  const known = (caller: string) => callers[caller]?.actor !== undefined
  const claims: Claim[] = [
    { mayGroup: known },
    { org: orgs.acme, mayGroup: (caller) => ['ada', 'bob', 'key'].includes(caller) },
    { org: orgs.evil, mayGroup: (caller) => caller === 'eve' },
  ]

  test('write for each only what is theirs to write, by the RPC and to the table', async () => {
    const jobs = Object.keys(callers).flatMap((caller) => claims.flatMap((claim) => (
      Array.from({ length: 12 }, (_, n) => ({ caller, claim, direct: n % 2 === 0 })))))
    shuffle(jobs)

    const outcomes = await Promise.all(jobs.map(({ caller, claim, direct }) => (
      as<unknown>(api, callers[caller]!, (tx) => (direct
        ? insertEvent(tx, uuidV7(), callers[caller]!.actor ?? people.nik, claim.org, caller)
        : trackEvent(tx, { event: caller, tracking_version: 2, org_id: claim.org })))
        .then(() => 'written', (error: { code: string }) => error.code))))

    const refusal = ({ caller, direct }: typeof jobs[number]) => (direct ? '42501' : known(caller) ? 'PT403' : 'PT401')
    expect(outcomes).toEqual(jobs.map((job) => (job.claim.mayGroup(job.caller) ? 'written' : refusal(job))))
    expect(await sql`select event, org_id, actor_id, api_key_id is not null as by_key, count(*)::int from events group by 1, 2, 3, 4 order by 1, 2`)
      .toEqual(Object.keys(callers).sort().flatMap((caller) => [orgs.acme, orgs.evil, undefined]
        .filter((org) => claims.find((claim) => claim.org === org)!.mayGroup(caller))
        .map((org) => ({ event: caller, org_id: org ?? null, actor_id: callers[caller]!.actor, by_key: caller === 'key', count: 12 }))))
  })

  test('show each only what is theirs to read', async () => {
    for (const org of [orgs.acme, orgs.evil]) {
      await as(api, service, (tx) => trackEvent(tx, { event: org, tracking_version: 2, org_id: org }))
    }
    const readers = Object.keys(callers).flatMap((caller) => Array<string>(25).fill(caller))
    shuffle(readers)
    const seen = await Promise.all(readers.map((caller) => as(api, callers[caller]!, (tx) => tx`select event from events`)))
    const visible = (caller: string) => [orgs.acme, orgs.evil].filter((org) => claims.find((c) => c.org === org)!.mayGroup(caller))
    expect(seen.map((rows) => rows.map((row) => row.event))).toEqual(readers.map(visible))
  })
})


const timeZones = ['UTC', 'Pacific/Kiritimati', 'Pacific/Pago_Pago', 'Asia/Kolkata', 'America/St_Johns', 'Europe/Vienna']

const fifty = (caller: Caller): Caller[] => Array(CONNECTIONS).fill(caller)

/** Lets all callers begin their transactions first, and then act at once. */
async function atOnce<T>(
  callers: Caller[], act: (tx: TransactionSql, n: number) => Promise<T>, { evenIfRefused = false } = {},
): Promise<T[]> {
  let ready = 0
  let open = () => {}
  const gate = new Promise<void>((done) => { open = done })
  return Promise.all(callers.map(async (caller, n) => {
    let result: T | undefined
    const done = as(api, caller, async (tx) => {
      if (++ready === callers.length) open()
      await gate
      result = await act(tx, n)
    })
    // A refusal that `act` has caught still fails the transaction at its commit
    await done.catch((error: unknown) => { if (!evenIfRefused || result === undefined) throw error })
    return result as T
  }))
}

function expectOneAnd49Duplicates(answers: Answer[], id: string): void {
  const first = answers.filter((answer) => !answer.duplicate)
  expect(first).toEqual([{ status: 'ok', event_id: id }])
  expect(answers.filter((answer) => answer.duplicate)).toEqual(
    Array(CONNECTIONS - 1).fill({ status: 'ok', event_id: id, duplicate: true }))
}

async function insertEvent(
  tx: TransactionSql, id: string, actor: string, org?: string, event = 'Direct',
): Promise<void> {
  await tx`insert into events (scope_id, occurred_at, event_id, org_id, event)
    values (${org ?? actor}, tracking.event_time(${id}), ${id}, ${org ?? null}, ${event})`
}

/** Midnight UTC of the first of this month, or of another counted from it. */
function startOfMonth(months = 0): Date {
  const now = new Date()
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + months))
}

async function makePartitionOf(month: Date): Promise<void> {
  const [{ exists } = { exists: false }] = await sql<{ exists: boolean }[]>`
    select to_regclass(tracking.partition_of(${month.toISOString()}::timestamp)) is not null as exists`
  if (!exists) await sql`select tracking.make_partition(${month.toISOString()}::timestamp)`
}

function withOffset(at: Date, minutes: number): string {
  const shown = new Date(at.getTime() + minutes * 60_000).toISOString().slice(0, -1)
  const size = Math.abs(minutes)
  const pad = (number: number) => String(Math.floor(number)).padStart(2, '0')
  return `${shown}${minutes < 0 ? '-' : '+'}${pad(size / 60)}:${pad(size % 60)}`
}

/** Resolves when so many sessions of the database wait for another's transaction. */
async function waitingSessions(count: number): Promise<void> {
  await expect.poll(async () => {
    const [row] = await sql`select count(*)::int from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
    return row!.count
  }, { timeout: 10_000, interval: 20 }).toBe(count)
}

function shuffle(items: unknown[]): void {
  for (let n = items.length - 1; n > 0; n--) {
    const other = Math.floor(Math.random() * (n + 1))
    ;[items[n], items[other]] = [items[other], items[n]]
  }
}
