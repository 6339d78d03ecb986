import { randomUUID } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Sql } from 'postgres'
import { connect } from '../src/database.ts'
import { orgs, people } from './demo.ts'
import { openEmptyLog, thisMonth, type Batch, type Log } from './log.ts'
import { as, failureOf, holderOf, person, service, trackEvent } from './sessions.ts'
import { until } from './workers.ts'
import { asLogin, type Clone } from './world.ts'

// A person is erased, and an organization, while others write, deliver and read. What one session sees is in
// tests/database/09_erasure.test.sql.

let clone: Clone
let sql: Sql
let log: Log
let close: () => Promise<void>

beforeEach(async () => { ({ clone, sql, log, close } = await openEmptyLog('2025-01', '2025-02')) })
afterEach(() => close())

const nobody = '00000000-0000-0000-0000-000000000000'

describe('what is held of a person', () => {
  test('goes wholly, whoever had it, and nobody else\'s does', async () => {
    // Given a person with events of their own and for an org, by key and by hand, builds, letters, mails and a limit
    await fill()
    const held = await traces(people.ada)
    expect(Object.entries(held).filter(([, count]) => count === 0).map(([table]) => table)).toEqual(['erasures'])
    const others = await rowsOfOthers()

    // When they are erased, a few events at a time
    const erased = await eraseActor(people.ada, 2)

    // Then there is nothing left of them but whom the sinks are still to be told of, and everything of the others
    expect(await traces(people.ada)).toEqual({ ...Object.fromEntries(Object.keys(held).map((table) => [table, 0])), erasures: 1 })
    expect(await rowsOfOthers()).toEqual(others)
    expect(await sql`select requested_by, count(*)::int as n from build_requests group by 1 order by 1`).toEqual([
      { requested_by: nobody, n: 3 }, { requested_by: people.bob, n: 1 }])

    // And it is noted, but for the name, when the sink has been told
    expect(await sql`select subject_id, email from tracking.erasures`).toEqual([{ subject_id: people.ada, email: 'ada@acme.test' }])
    expect(await sql`select tracking.settle_notice(${erased.erasure}, 'sink', 'told') as done`).toEqual([{ done: true }])
    expect(await sql`
      select subject, subject_id, email, asked_by, events::int, builds::int, letters::int,
             subject_hash = sha256(${people.ada}) as is_hers, erased_at is not null and done_at is not null as ended
      from   tracking.erasures`).toEqual([{
      subject: 'actor', subject_id: null, email: null, asked_by: 'postgres as service_role', events: erased.events, builds: 3,
      letters: 1, is_hers: true, ended: true }])
    expect(erased.events).toBe(held.events! + held.dead_letters!)
  })

  test('goes for good: what the key that they had, or the role, let them do is over', async () => {
    const api = connect(asLogin(clone.databaseUrl, 'authenticator'))
    try {
      await as(api, holderOf('as_local_acme_admin'), (tx) => trackEvent(tx, { event: 'By key' }))
      await eraseActor(people.ada)
      expect(await failureOf(as(api, holderOf('as_local_acme_admin'), (tx) => trackEvent(tx, { event: 'By key' }))))
        .toMatchObject({ code: 'PT401' })
      expect(await failureOf(as(api, person(people.ada), (tx) => trackEvent(tx, { event: 'For Acme', org_id: orgs.acme, tracking_version: 2 }))))
        .toMatchObject({ code: 'PT403' })

      // But who comes back is somebody like anybody, and can be erased again
      await as(api, person(people.ada), (tx) => trackEvent(tx, { event: 'Back', tracking_version: 2 }))
      expect(await log.names()).toEqual(['Back'])
      expect(await eraseActor(people.ada)).toMatchObject({ events: 1 })
      expect(await sql`select count(*)::int as n from tracking.erasures`).toEqual([{ n: 2 }])
    } finally {
      await api.end()
    }
  })

  test('goes though a build of theirs is running, and its end is nobody\'s', async () => {
    await sql`insert into build_requests (app_id, platform, requested_by) values ('com.acme.app', 'ios', ${people.ada})`
    await eraseActor(people.ada)
    await sql`update build_requests set status = 'running'`
    await sql`update build_requests set status = 'succeeded'`
    expect(await sql`select event, actor_id, org_id from events order by event_id`).toEqual([
      { event: 'Build Started', actor_id: nobody, org_id: orgs.acme }, { event: 'Build Succeeded', actor_id: nobody, org_id: orgs.acme }])
  })

  test('is exported before, all of it and nobody else\'s, without what would let anybody in', async () => {
    await fill()
    const rows = await as(sql, service, (tx) => tx`select kind, data from tracking.export_actor(${people.ada})`)
    const counts: Record<string, number> = {}
    for (const { kind } of rows) counts[kind] = (counts[kind] ?? 0) + 1
    const held = await traces(people.ada)
    expect(counts).toEqual({
      event: held.events, undelivered: held.undelivered, dead_letter: held.dead_letters, build: held.builds, api_key: held.api_keys,
      role: held.roles, mail_optout: held.mail_optouts, mail_due: held.mails_due, rate_window: held.rate_windows })
    const text = JSON.stringify(rows)
    expect(text).not.toContain('key_hash')
    for (const other of [people.bob, people.cyd, people.eve]) expect(text).not.toContain(other)
    expect((await as(sql, service, (tx) => tx`select * from tracking.export_actor(${randomUUID()})`)).length).toBe(0)
  })
})

describe('the books of the sinks', () => {
  test('balance after each bite, wherever each sink is in the log, and the rollup is right', async () => {
    // Given sinks that are done, are filtered, in shards, late, rewound, that refused some, have nothing yet, or a part
    const actors = [people.ada, people.bob]
    for (const [n, month] of ['2025-01', '2025-02', '2025-01', thisMonth()].entries()) {
      for (const actor of actors) await log.write(month, { actor }, `A ${n}`, `B ${n}`)
      await log.write(month, { actor: people.ada, org: orgs.acme }, `A for Acme ${n}`)
      if (n === 0) for (const sink of ['done', 'rewound', 'refusing', 'none', 'amid', 'old']) await log.createSink(sink)
      if (n === 0) await log.createSink('some', { events: ['A *'] })
      if (n === 1) await log.createSink('sharded', { shards: 4 })
      if (n === 2) await log.createSink('late', { fromBeginning: false })
      if (n === 2) await log.rollUp()
      await log.drain('old')
    }
    const late = await log.begin()
    await log.write('2025-02', { actor: people.ada, on: late.sql }, 'Late')
    for (const sink of ['done', 'rewound', 'some', 'sharded', 'late']) await log.drain(sink)
    await late.commit()
    const refused = await log.lease('refusing')
    await log.complete(refused, refused!.events.filter((_, n) => n % 2 === 0).map((event) => ({ event, error: '400' })))
    await log.complete(await log.lease('amid', 3))
    await log.rewind('rewound', '-infinity')
    await sql`select tracking.fail_batch('none', 0, ${(await log.lease('none', 2))!.lease}, '503')`
    const before = await log.lag()

    // When one who has half of it all is erased, an hour at a time
    let bites = 0
    const { events } = await eraseActor(people.ada, 1, async () => {
      bites++
      expect(await log.gaps()).toEqual([])
      expect(await log.rollupErrors()).toEqual([])
    })

    // Then it took several bites, and what was delivered counts as delivered
    expect(bites).toBeGreaterThan(3)
    expect(events).toBe(13)
    const after = await log.lag()
    expect(after.map(({ sink, delivered, filtered }) => [sink, delivered, filtered])).toEqual(before.map(({ sink, delivered, filtered }) => [sink, delivered, filtered]))
    expect(after.find(({ sink }) => sink === 'none')).toMatchObject({ pending: 8 })

    // And each sink gets the rest, once, and all of it again when it is rewound
    await sql`update tracking.cursors set retry_at = null`
    for (const { sink } of before) {
      await log.drain(sink)
      await sql`select tracking.rewind_sink(${sink}, '-infinity')`
      expect([sink, (await log.drain(sink)).length]).toEqual([sink, sink === 'some' ? 4 : 8])
    }
    expect(await log.gaps()).toEqual([])
  })

  test('balance where a month with some of it had been dropped, and the letters were kept', async () => {
    await log.write('2025-01', 'Old', 'Old and bad')
    await log.createSink('sink')
    const batch = await log.lease('sink')
    await log.complete(batch, [{ event: batch!.events[1], error: '400' }])
    await sql`select tracking.drop_partitions('1 month')`
    expect(await sql`select event ->> 'event' as event from tracking.undelivered`).toEqual([{ event: 'Old and bad' }])
    await eraseActor(people.ada)
    expect(await sql`select * from tracking.undelivered`).toEqual([])
    expect(await log.gaps()).toEqual([])
    await log.rewind('sink', '-infinity')
    expect(await log.gaps()).toEqual([])
  })

  test('balance in a later generation of the log', async () => {
    await log.createSink('behind')
    await log.createSink('amid')
    await log.write('2025-01', 'Old 1', 'Old 2', 'Old 3')
    await log.complete(await log.lease('amid', 2))
    await sql`do $$ begin update tracking.log set epoch = 2; update tracking.log set written_by = xmin; end $$`
    await sql`alter table events alter epoch set default 2`
    await log.write('2025-01', { actor: people.bob }, 'New')
    expect(await log.gaps()).toEqual([])
    await eraseActor(people.ada)
    expect(await log.gaps()).toEqual([])
    for (const sink of ['behind', 'amid']) expect([sink, await log.drain(sink)]).toEqual([sink, ['New']])
    expect(await log.gaps()).toEqual([])
  })
})

describe('a batch that is under way', () => {
  test.each<[string, (batch: Batch) => Promise<unknown>]>([
    ['is completed', (batch) => log.complete(batch)],
    ['is advanced to its end, and completed', async (batch) => {
      const last = batch.events.at(-1)!
      await sql`select tracking.advance_batch('sink', 0, ${batch.lease}, ${batch.events.length - 1}, ${batch.events.at(-2)!.txid}, ${batch.events.at(-2)!.event_id})`
      await sql`select tracking.advance_batch('sink', 0, ${batch.lease}, 1, ${last.txid}, ${last.event_id})`
      await log.complete({ ...batch, events: [] })
    }],
    ['is refused', (batch) => log.complete(batch, batch.events.map((event) => ({ event, error: '400' })))],
    ['fails', (batch) => sql`select tracking.fail_batch('sink', 0, ${batch.lease}, '503')`],
    ['is handed on', (batch) => sql`select tracking.extend_lease('sink', 0, ${batch.lease}, 0)`],
  ])('is waited for, and can be ended as ever: it %s', async (_, end) => {
    await log.createSink('sink')
    await log.write('2025-01', { actor: people.bob }, 'Bob 1')
    await log.write('2025-01', 'Ada 1', 'Ada 2')
    await log.write('2025-01', { actor: people.bob }, 'Bob 2')
    const batch = (await log.lease('sink'))!
    expect(await bite(people.ada)).toMatchObject({ events: 0, done: false, waits_for: ['sink'] })
    expect(await log.names()).toEqual(['Ada 1', 'Ada 2', 'Bob 1', 'Bob 2'])
    await end(batch)
    expect(await log.gaps()).toEqual([])
    expect(await eraseActor(people.ada)).toMatchObject({ events: 2 })
    expect(await log.gaps()).toEqual([])
    await sql`update tracking.cursors set retry_at = null`
    await log.drain('sink')
    expect(await log.gaps()).toEqual([])
    expect(await log.lag()).toMatchObject([{ pending: 0 }])
  })

  test('and the batch after it, which was leased ahead, are waited for', async () => {
    await log.createSink('sink')
    await log.write('2025-01', { actor: people.bob }, 'Bob 1', 'Bob 2')
    await log.write('2025-01', 'Ada')
    const batch = (await log.lease('sink', 2))!
    const [ahead = null] = await sql<Batch[]>`select * from tracking.lease_ahead('sink', 0, ${batch.lease})`
    expect(ahead?.events).toHaveLength(1)
    expect(await bite(people.ada)).toMatchObject({ waits_for: ['sink'] })
    await log.complete(batch)
    expect(await bite(people.ada)).toMatchObject({ waits_for: ['sink'] })
    await log.complete(ahead)
    expect(await bite(people.ada)).toMatchObject({ events: 1, done: true, waits_for: null })
    expect(await log.gaps()).toEqual([])
  })

  test('that holds none of it is not, nor are events that it has behind it', async () => {
    await log.createSink('sink')
    await log.write('2025-01', 'Ada 1')
    await log.write('2025-01', { actor: people.bob }, 'Bob 1', 'Bob 2')
    await log.write('2025-01', 'Ada 2')
    const batch = (await log.lease('sink', 3))!
    await sql`select tracking.advance_batch('sink', 0, ${batch.lease}, 1, ${batch.events[0]!.txid}, ${batch.events[0]!.event_id})`
    expect(await bite(people.ada)).toMatchObject({ events: 2, done: true, waits_for: null })
    await log.complete(batch)
    expect(await log.drain('sink')).toEqual([])
    expect(await log.lag()).toMatchObject([{ delivered: 3, pending: 0 }])
    expect(await log.gaps()).toEqual([])
  })

  test('holds up the hours that it has events of, and no earlier ones', async () => {
    await log.createSink('sink')
    await log.write('2025-01', 'Ada 1', 'Ada 2')
    await log.drain('sink')
    await log.write('2025-02', 'Ada 3')
    const batch = await log.lease('sink')
    expect(await bite(people.ada)).toMatchObject({ events: 2, done: false, waits_for: null })
    expect(await bite(people.ada)).toMatchObject({ events: 2, done: false, waits_for: ['sink'] })
    expect(await log.gaps()).toEqual([])
    await log.complete(batch)
    expect(await bite(people.ada)).toMatchObject({ events: 3, done: true, waits_for: null })
    expect(await log.gaps()).toEqual([])
  })

  test('that was taken while the rollup forgot them is left for another time, wholly', async () => {
    await log.createSink('sink')
    await log.write('2025-01', 'Ada 1', 'Ada 2')
    await log.rollUp()
    const somebody = await log.begin()
    await somebody.sql`select from tracking.activity where actor_id = ${people.ada} for update`
    const [{ erasure } = { erasure: '' }] = await sql<{ erasure: string }[]>`
      insert into tracking.erasures (subject, subject_id, subject_hash, asked_by) values ('actor', ${people.ada}, 'x', 'test') returning id as erasure`
    const erasing = failureOf(sql`select * from tracking.continue_erasure(${erasure})`)
    await until(async () => (await sql`select from pg_locks where not granted`).length > 0)
    const batch = await log.lease('sink')
    await somebody.commit()
    expect(await erasing).toEqual({ code: '55P03', message: 'A worker has just taken some of the events.' })
    expect(await log.names()).toEqual(['Ada 1', 'Ada 2'])
    expect(await log.rollupErrors()).toEqual([])
    await log.complete(batch)
    expect(await bite(people.ada)).toMatchObject({ events: 2, done: true })
    expect(await log.gaps()).toEqual([])
  })

  test('whose lease has run out is taken away: who comes back with it has lost it', async () => {
    await log.createSink('sink')
    await log.write('2025-01', 'Ada')
    await log.write('2025-01', { actor: people.bob }, 'Bob')
    const batch = (await log.lease('sink'))!
    await sql`update tracking.cursors set leased_until = clock_timestamp()`
    expect(await bite(people.ada)).toMatchObject({ events: 1, done: true })
    for (const statement of [
      sql`select tracking.complete_batch('sink', 0, ${batch.lease}) as it`,
      sql`select tracking.advance_batch('sink', 0, ${batch.lease}, 1, ${batch.events[0]!.txid}, ${batch.events[0]!.event_id}) as it`,
      sql`select tracking.extend_lease('sink', 0, ${batch.lease}, 30) as it`,
    ]) expect(await statement).toEqual([{ it: false }])
    expect(await log.drain('sink')).toEqual(['Bob'])
    expect(await log.gaps()).toEqual([])
  })

  test('never breaks, however many workers, writers and rewinds there are meanwhile', async () => {
    await log.createSink('one')
    await log.createSink('many', { shards: 4 })
    for (let n = 0; n < 40; n++) for (const actor of [people.ada, people.bob]) await log.write('2025-01', { actor }, `Old ${n}`)
    let isOver = false
    const failures: unknown[] = []
    const repeat = async (work: () => Promise<unknown>) => {
      while (!isOver && failures.length < 10) await work().catch((error: unknown) => failures.push(error))
    }
    const lost: string[] = []
    const deliver = async (sink: string) => {
      const batch = await log.lease(sink, 7)
      if (!batch) return new Promise((done) => setTimeout(done, 2))
      const [first] = batch.events
      if (first) await sql`select tracking.advance_batch(${sink}, ${batch.shard}, ${batch.lease}, 1, ${first.txid}, ${first.event_id})`
      const [row] = await sql`select tracking.complete_batch(${sink}, ${batch.shard}, ${batch.lease}) as done`
      if (!row?.done) lost.push(sink)
    }
    const working = [
      ...['one', 'many', 'many', 'many'].map((sink) => repeat(() => deliver(sink))),
      repeat(async () => {
        await log.write(thisMonth(), { actor: people.ada }, 'New')
        await new Promise((done) => setTimeout(done, 20))
      }),
      repeat(() => log.rollUp()),
      repeat(async () => {
        await sql`select tracking.rewind_sink('many', '-infinity')`
        await new Promise((done) => setTimeout(done, 100))
      }),
    ]
    try {
      for (const actor of [people.ada, people.bob, people.ada, people.ada]) await eraseActor(actor, 3)
    } finally {
      isOver = true
      await Promise.all(working)
    }
    expect(failures).toEqual([])
    await eraseActor(people.ada)
    for (const sink of ['one', 'many']) await log.drain(sink)
    expect(await log.gaps()).toEqual([])
    expect(await log.rollupErrors()).toEqual([])
    expect(await log.names()).toEqual([])
    expect(lost).not.toContain('one') // the other is rewound
  })
})

describe('an erasure', () => {
  test('is one, however many ask for it at once', async () => {
    await log.write('2025-01', ...Array.from({ length: 20 }, (_, n) => `Ada ${n}`))
    await log.write('2025-02', ...Array.from({ length: 20 }, (_, n) => `Ada ${n}`))
    const answers = await Promise.all(Array.from({ length: 8 }, () => bite(people.ada, 5)))
    expect(new Set(answers.map(({ erasure }) => erasure)).size).toBe(1)
    expect(await sql`select events::int, done_at is not null as done from tracking.erasures`).toEqual([{ events: 40, done: true }])
  })

  test('that was asked for while somebody was in the way goes on later', async () => {
    await log.write('2025-01', 'Ada')
    await sql`alter function tracking.erase_actor set lock_timeout = '50ms'`
    await sql`alter function tracking.continue_erasure set lock_timeout = '50ms'`
    const somebody = await log.begin()
    await somebody.sql`lock table tracking.expired in share row exclusive mode`
    const asked = await bite(people.ada)
    expect(asked).toMatchObject({ events: 0, done: false, waits_for: null })
    expect(await failureOf(sql`select * from tracking.continue_erasure(${asked.erasure})`)).toMatchObject({ code: '55P03' })
    await somebody.commit()
    expect(await sql`select events::int, done from tracking.continue_erasure(${asked.erasure})`).toEqual([{ events: 1, done: true }])
    expect(await sql`select events::int, done from tracking.continue_erasure(${asked.erasure})`).toEqual([{ events: 1, done: true }])
    expect(await failureOf(sql`select * from tracking.continue_erasure(${randomUUID()})`)).toMatchObject({ code: '42704' })
  })

  test('takes the same events from the log and from the rollup, wherever the session is and however it writes times', async () => {
    await log.write('2025-07', ...Array.from({ length: 20 }, (_, n) => `Ada ${n}`))
    await log.rollUp()
    const bitten = await as(sql, service, async (tx) => {
      await tx`set local timezone = 'Europe/Dublin'`
      await tx`set local datestyle = 'SQL, DMY'` // which writes its summer IST, and reads that as Israel's
      return tx`select events::int, done from tracking.erase_actor(${people.ada}, 1)`
    })
    expect(bitten[0]!.events).toBeGreaterThan(0)
    expect(await log.rollupErrors()).toEqual([])
    expect(await eraseActor(people.ada)).toMatchObject({ events: 20, done: true })
  })

  test('and a month that is copied without some channels wait for each other: nothing comes back', async () => {
    await log.write('2025-01', { channel: 'noise' }, 'Noise')
    await log.write('2025-01', { channel: 'kept' }, 'Ada')
    await sql`insert into tracking.retention (channel, keep) values ('noise', '1 month')`
    await sql`alter function tracking.apply_retention set lock_timeout = '60s'`
    const reader = await log.begin()
    await reader.sql`select from events`
    const applied = sql`select channels, dropped from tracking.apply_retention()`.execute()
    await until(async () => (await sql`select from pg_locks where relation = 'public.events'::regclass and not granted`).length > 0)
    const erased = eraseActor(people.ada)
    await until(async () => (await sql`select from pg_locks where relation = 'tracking.expired'::regclass and not granted`).length > 0)
    await reader.commit()
    expect(await applied).toEqual([{ channels: ['noise'], dropped: true }])
    expect(await erased).toMatchObject({ events: 1 })
    expect(await log.names()).toEqual([])

    const erasing = await log.begin()
    await erasing.sql`select tracking.erase_actor(${people.bob})`
    expect(await failureOf(sql`select tracking.drop_partitions('1 month')`)).toMatchObject({ code: '55P03' })
    await erasing.commit()
  })

  test('holds nobody up who reads, or writes for others', async () => {
    await log.write('2025-01', 'Ada')
    await log.write('2025-01', { actor: people.bob }, 'Bob')
    const erasing = await log.begin()
    await erasing.sql`select tracking.erase_actor(${people.ada})`
    await sql`set statement_timeout = '2s'`
    expect(await log.names()).toEqual(['Ada', 'Bob'])
    await log.write('2025-01', { actor: people.bob }, 'Bob, meanwhile')
    await log.write(thisMonth(), 'Ada, meanwhile')
    await erasing.commit()
    expect(await log.names()).toEqual(['Ada, meanwhile', 'Bob', 'Bob, meanwhile'])
  })
})

describe('an organization', () => {
  test('goes with all that is its own, and the people stay', async () => {
    await log.createSink('sink', { shards: 3 })
    await log.write('2025-01', { org: orgs.acme, actor: people.ada }, 'Ada for Acme')
    await log.write('2025-01', { org: orgs.acme, actor: people.bob }, 'Bob for Acme')
    await log.write('2025-02', { org: orgs.evil, actor: people.eve }, 'Eve for Evil')
    await log.write('2025-01', { actor: people.ada }, 'Ada')
    await log.rollUp()
    await sql`insert into build_requests (app_id, platform, requested_by) values ('com.acme.app', 'ios', ${people.ada}), ('com.evil.app', 'ios', ${people.eve})`
    await sql`insert into tracking.build_limits values ('com.acme.app', 600), ('com.evil.app', 600)`
    await sql`insert into tracking.announced_orgs (sink, org_id, name, event_id, occurred_at) values ('sink', ${orgs.acme}, 'Acme', ${randomUUID()}, now())`
    const first = (await log.lease('sink', 1))!
    await log.complete(first, first.events.map((event) => ({ event, error: '400' })))
    expect(await sql`select events::int, builds::int, api_keys::int, roles::int from tracking.count_held('org', ${orgs.acme})`).toEqual([
      { events: 3, builds: 1, api_keys: 3, roles: 6 }])

    await drainErasure(() => as(sql, service, (tx) => tx`select *, events::int as events from tracking.erase_org(${orgs.acme}, 1)`))
    expect(await log.names()).toEqual(['Ada', 'Build Requested', 'Eve for Evil'])
    expect(await log.gaps()).toEqual([])
    expect(await log.rollupErrors()).toEqual([])
    const counts = await sql`
      select (select count(*)::int from orgs where id = ${orgs.acme}) as orgs,
             (select count(*)::int from apps where owner_org = ${orgs.acme}) as apps,
             (select count(*)::int from build_requests where owner_org = ${orgs.acme}) as builds,
             (select count(*)::int from tracking.role_bindings where org_id = ${orgs.acme} or app_id like 'com.acme%') as roles,
             (select count(*)::int from tracking.kinds where org_id = ${orgs.acme}) as kinds,
             (select count(*)::int from tracking.announced_orgs) as announced`
    expect(counts).toEqual([{ orgs: 0, apps: 0, builds: 0, roles: 0, kinds: 0, announced: 0 }])
    expect(await sql`select name from api_keys order by name`).toEqual([{ name: 'demo_app' }])
    expect(await sql`select app_id from tracking.build_limits`).toEqual([{ app_id: 'com.evil.app' }])
    expect(await sql`select count(*)::int as n from tracking.role_bindings where principal_id = ${people.ada}`).toEqual([{ n: 1 }])
    expect(await sql`select subject, builds::int, events::int, done_at is null as waits from tracking.erasures`).toEqual([
      { subject: 'org', builds: 1, events: 3, waits: true }])
  })
})

/** Fills everything that can hold a person, with Ada and with others. */
async function fill(): Promise<void> {
  const api = connect(asLogin(clone.databaseUrl, 'authenticator'))
  await sql`update tracking.settings set events_per_minute = 100`
  for (const actor of [people.ada, people.bob]) {
    await as(api, person(actor), async (tx) => {
      await trackEvent(tx, { event: 'By hand', tracking_version: 2 })
      await trackEvent(tx, { event: 'For Acme', tracking_version: 2, org_id: orgs.acme })
    })
    await sql`insert into tracking.mail_optouts (actor_id, preference) values (${actor}, 'onboarding')`
    await log.write('2025-01', { actor }, `Old`, `Bad`)
  }
  await as(api, holderOf('as_local_acme_admin'), (tx) => trackEvent(tx, { event: 'By key', tracking_version: 2, org_id: orgs.acme }))
  await api.end()
  await sql`insert into build_requests (app_id, platform, requested_by) select 'com.acme.app', 'ios', r from unnest(${[people.ada, people.ada, people.ada, people.bob]}::uuid[]) as r`
  for (const actor_id of [people.ada, people.bob]) {
    await sql`insert into tracking.dead_letters (event, error) values (${sql.json({ actor_id, org_id: orgs.acme, event: 'Build Started' })}, 'it rained')`
  }
  await sql`
    insert into tracking.mail_claims (reaction, app_id, window_start, scope_id, event_id, due)
    values ('onboarding-step-done', 'com.acme.app', now(), ${orgs.acme}, ${randomUUID()}, ${[people.ada, people.bob]})`
  await log.createSink('sink')
  const batch = (await log.lease('sink'))!
  await log.complete(batch, batch.events.filter(({ event }) => event === 'Bad').map((event) => ({ event, error: '400' })))
  await log.rollUp()
  await log.write('2025-02', 'Unrolled')
}

/** How many rows of each table name a person. */
async function traces(actor: string): Promise<Record<string, number>> {
  const [row] = await sql`
    select (select count(*)::int from events where ${actor}::uuid in (actor_id, scope_id)) as events,
           (select count(*)::int from build_requests where requested_by = ${actor}) as builds,
           (select count(*)::int from api_keys where owner_id = ${actor}) as api_keys,
           (select count(*)::int from tracking.role_bindings as b where b.principal_id = ${actor} or exists (
             select from api_keys as k where k.id = b.principal_id and k.owner_id = ${actor})) as roles,
           (select count(*)::int from tracking.undelivered where event ->> 'actor_id' = ${actor}) as undelivered,
           (select count(*)::int from tracking.dead_letters where event ->> 'actor_id' = ${actor}) as dead_letters,
           (select count(*)::int from tracking.rate_windows where actor_id = ${actor}) as rate_windows,
           (select count(*)::int from tracking.mail_optouts where actor_id = ${actor}) as mail_optouts,
           (select count(*)::int from tracking.mail_claims where ${actor}::uuid = any (due)) as mails_due,
           (select count(*)::int from tracking.activity where actor_id = ${actor}) as activity,
           (select count(*)::int from tracking.kinds where scope_id = ${actor}) as kinds,
           (select count(*)::int from tracking.members where member = ${actor}) as members,
           (select count(*)::int from tracking.erasures where subject_id = ${actor}) as erasures`
  return row!
}

async function rowsOfOthers() {
  return [...await sql`
    select to_jsonb(e) as row from events as e where actor_id <> ${people.ada}
    union all select to_jsonb(u) from tracking.undelivered as u where event ->> 'actor_id' <> ${people.ada}
    union all select to_jsonb(d) from tracking.dead_letters as d where event ->> 'actor_id' <> ${people.ada}
    union all select to_jsonb(a) from tracking.activity as a where actor_id <> ${people.ada}
    union all select to_jsonb(b) from tracking.role_bindings as b where principal_id = any (${[people.bob, people.cyd, people.eve]}::uuid[])
    union all select to_jsonb(o) from tracking.mail_optouts as o where actor_id <> ${people.ada}
    union all select to_jsonb(w) from tracking.rate_windows as w where actor_id <> ${people.ada}
    union all select to_jsonb(o) from orgs as o
    order by 1`]
}

type Bite = { erasure: string, events: number, done: boolean, waits_for: string[] | null }

async function bite(actor: string, size = 5000): Promise<Bite> {
  const [row] = await as(sql, service, (tx) => tx<Bite[]>`select *, events::int as events from tracking.erase_actor(${actor}, ${size})`)
  return row!
}

/** Erases a person, bite by bite. */
async function eraseActor(actor: string, size = 5000, afterEach = async () => {}): Promise<Bite> {
  return drainErasure(() => as(sql, service, (tx) => tx<Bite[]>`select *, events::int as events from tracking.erase_actor(${actor}, ${size})`), size, afterEach)
}

async function drainErasure(begin: () => Promise<readonly any[]>, size = 1, afterEach = async () => {}): Promise<Bite> {
  let [{ erasure, ...answer }] = await begin() as [Bite]
  for (;;) {
    await afterEach()
    if (answer.done) return { erasure, ...answer }
    if (answer.waits_for) await new Promise((done) => setTimeout(done, 5))
    await as(sql, service, (tx) => tx<Bite[]>`select *, events::int as events from tracking.continue_erasure(${erasure}, ${size})`).then(
      ([next]) => { answer = next! },
      (error: { code?: string }) => { if (error.code !== '55P03') throw error })
  }
}
