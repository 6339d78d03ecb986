import type { Sql, TransactionSql } from 'postgres'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { orgs, people, uuidV7 } from './demo.ts'
import { as, holderOf, nobody, person, service, trackEvents, type Caller } from './sessions.ts'
import { createWorld, type World } from './world.ts'

// The sets of people, beside the log that they stand for.

const [everybody, allOrgs] = ['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff']

let world: World
let sql: Sql

beforeAll(async () => {
  world = await createWorld()
  sql = world.sql
  await sql`update tracking.settings set api_logins = api_logins || session_user::name`
})
afterAll(() => world.close())
beforeEach(async () => {
  await sql`delete from public.events`
  await sql`truncate tracking.activity`
  await rollUp()
})

async function rollUp(): Promise<void> {
  for (let added = 1; added > 0;) added = Number((await sql`select tracking.roll_up() as added`)[0]!.added)
}

const acme = { tracking_version: 2, org_id: orgs.acme }
const on = (day: number, hour = 9) => ({ timestamp: new Date(Date.UTC(2026, 2, day, hour, 30)).toISOString() })
const send = (who: Caller, payloads: object[]) =>
  as(sql, who, async (tx) => { expect((await trackEvents(tx, payloads)).dropped).toBe(0) })

/** Who of a circle did what on which day, by the sets: bit by bit. */
const byDays = (tx: Sql | TransactionSql) => tx`
  select k.scope_id as circle, k.event, k.channel, d.day::text, m.member
  from   tracking.days as d
  join   tracking.kinds as k using (kind_id)
  join   tracking.members as m on m.circle = k.scope_id and m.number >> 12 = d.page
  where  (m.number & 4095) < length(d.members)
  and    get_bit(d.members, m.number & 4095) = 1
  order  by 1, 2, 3, 4, 5`
const byLog = (tx: Sql | TransactionSql) => tx`
  select distinct c.circle, n.event, n.channel, n.day::text, c.member
  from   public.events as e
  cross  join lateral (values (e.org_id, e.actor_id), (${everybody}::uuid, e.actor_id), (${allOrgs}::uuid, e.org_id)) as c (circle, member)
  cross  join lateral (select (e.occurred_at at time zone 'UTC')::date as day, tracking.surface_of(e.event, e.channel) as surface) as d
  cross  join lateral (values (e.event, e.channel, d.day), ('', '', d.day), ('', d.surface, '-infinity')) as n (event, channel, day)
  where  num_nulls(c.circle, c.member, n.channel) = 0
  order  by 1, 2, 3, 4, 5`
/** How many events there were, by the sets and by the log. */
const countedByDays = (tx: Sql | TransactionSql) => tx`
  select k.scope_id as circle, k.event, d.day::text, sum(d.events)::int as events
  from   tracking.days as d join tracking.kinds as k using (kind_id)
  group  by 1, 2, 3 order by 1, 2, 3`
const countedByLog = (tx: Sql | TransactionSql) => tx`
  select c.circle, n.event, n.day::text, count(*)::int as events
  from   public.events as e
  cross  join lateral (values (e.org_id), (${everybody}::uuid), (case when e.org_id is not null then ${allOrgs}::uuid end)) as c (circle)
  cross  join lateral (select (e.occurred_at at time zone 'UTC')::date as day, tracking.surface_of(e.event, e.channel) as surface) as d
  cross  join lateral (values (e.event, e.channel, d.day), ('', '', d.day), ('', d.surface, '-infinity')) as n (event, channel, day)
  where  num_nulls(c.circle, n.channel) = 0
  group  by 1, 2, 3 order by 1, 2, 3`

async function expectDaysOfTheLog(): Promise<void> {
  expect(await byDays(sql)).toEqual(await byLog(sql))
  expect(await countedByDays(sql)).toEqual(await countedByLog(sql))
  expect(await sql`select from tracking.days where events = 0`).toEqual([])
  const bits = await sql`select coalesce(sum(bit_count(members)), 0)::int as n from tracking.days`
  expect(bits, 'no bit stands for nobody').toEqual([{ n: (await byDays(sql)).length }])
}

/** Events of everybody, of orgs and of none, of apps and of none, with and without a person. */
async function sendAll(day: number): Promise<void> {
  await send(person(people.ada), [{ event: 'A', ...on(day) }, { event: 'A', ...acme, ...on(day, 23) }, { event: 'B', tracking_version: 2, tags: { app_id: 'com.acme.beta' }, ...on(day) }])
  await send(person(people.cyd), [{ event: 'A', tracking_version: 2, tags: { app_id: 'com.acme.app' }, channel: 'usage', ...on(day) }, { event: 'C', ...on(day) }])
  await send(person(people.eve), [{ event: 'A', tracking_version: 2, org_id: orgs.evil, ...on(day) }])
  await send(person(people.nik), [{ event: 'A', ...on(day, 0) }])
  await send(service, [{ event: 'S', ...acme, ...on(day) }, { event: 'A', ...acme, user_id: people.bob, ...on(day) }])
}

test('the days are those of the log, also where events come late', async () => {
  await sendAll(2)
  await sendAll(4)
  await rollUp()
  await expectDaysOfTheLog()
  await sendAll(2)
  await sendAll(3)
  await rollUp()
  expect((await byDays(sql)).length).toBeGreaterThan(50)
  await expectDaysOfTheLog()
})

test('who is erased is in no day and has no number, and the others stay', async () => {
  await sendAll(2)
  await sendAll(3)
  await rollUp()
  await sql`delete from public.events where actor_id = ${people.ada}`
  await sql`delete from tracking.activity where actor_id = ${people.ada}`
  await expectDaysOfTheLog()
  expect(await sql`select from tracking.members where member = ${people.ada}`).toEqual([])
  expect((await sql`select from tracking.members where member = ${people.cyd}`).length).toBe(2)

  await sql`delete from public.events where org_id = ${orgs.evil}`
  await sql`delete from tracking.activity as a using tracking.kinds as k where k.kind_id = a.kind_id and k.org_id = ${orgs.evil}`
  await expectDaysOfTheLog()
  expect(await sql`select from tracking.members where ${orgs.evil} in (circle, member)`).toEqual([])
})

test('hours that are taken away leave the day to whoever has others', async () => {
  await send(person(people.ada), [{ event: 'A', ...acme, ...on(2, 1) }, { event: 'A', ...acme, ...on(2, 5) }, { event: 'B', ...acme, ...on(2, 5) }])
  await send(person(people.bob), [{ event: 'A', ...acme, ...on(2, 1) }])
  await rollUp()
  for (const hour of ['2026-03-02T01:00Z', '2026-03-02T05:00Z']) {
    await sql`delete from public.events where date_trunc('hour', occurred_at) = ${hour}`
    await sql`delete from tracking.activity where hour = ${hour}`
    await expectDaysOfTheLog()
  }
  expect(await sql`select from tracking.days`).toEqual([])
})

test('counted anew they are the same, and none are left where the rollup is emptied', async () => {
  await sendAll(2)
  await sendAll(3)
  await rollUp()
  const before = await byDays(sql)
  await sql`select tracking.recount_activity('2026-03-03')`
  expect(await byDays(sql)).toEqual(before)
  await sql`select tracking.recount_activity()`
  expect(await byDays(sql)).toEqual(before)
  await sql`truncate tracking.activity`
  expect(await sql`select from tracking.days`).toEqual([])
})

test('what is left elsewhere, or on another day, puts nobody where nothing is left', async () => {
  const on = (day: number, channel: string) => ({ event: 'A', ...acme, channel, timestamp: new Date(Date.UTC(2026, 2, day, 9)).toISOString() })
  for (const who of [people.ada, people.bob]) await send(person(who), [on(2, 'usage'), on(2, 'app'), on(3, 'app')])
  await rollUp()
  const take = async (condition: string) => {
    await sql.unsafe(`delete from public.events as e where ${condition}`)
    await sql.unsafe(`delete from tracking.activity as a using tracking.kinds as e where e.kind_id = a.kind_id and ${condition.replace('e.occurred_at', 'a.hour')}`)
    await expectDaysOfTheLog()
  }
  await take(`actor_id = '${people.ada}' and e.channel = 'usage'`)
  await take(`actor_id = '${people.ada}' and e.occurred_at < '2026-03-03'`)
  await take(`e.channel = 'usage'`)
  expect((await byDays(sql)).filter(({ day }) => day === '-infinity').map(({ channel }) => channel)).not.toContain('dashboard')
})

test('whole days that go leave the sets of the rest', async () => {
  for (const day of [2, 3]) {
    await sendAll(day)
    await send(person(day === 2 ? people.ada : people.bob), [{ event: 'A', ...acme, channel: 'app', ...on(day) }])
  }
  await rollUp()
  await sql`delete from public.events where occurred_at < '2026-03-03'`
  await sql`select tracking.forget_days('2026-03-02', '2026-03-03')`
  await expectDaysOfTheLog()
})

test('the sets of surfaces follow where events are on other ones', async () => {
  await sendAll(2)
  await sendAll(3)
  await rollUp()
  await sql`insert into tracking.surfaces (surface, channel, event) values ('cli', 'default', '*'), ('builder', 'default', 'C')`
  await expectDaysOfTheLog()
  expect(new Set((await byDays(sql)).filter(({ day }) => day === '-infinity').map(({ channel }) => channel))).toEqual(new Set(['builder', 'cli', 'dashboard']))
  await sql`delete from public.events where actor_id = ${people.ada}`
  await sql`delete from tracking.activity where actor_id = ${people.ada}`
  await expectDaysOfTheLog()
  await sql`delete from tracking.surfaces where channel = 'default'`
  await expectDaysOfTheLog()
  expect(await sql`select from tracking.kinds where event = '' and surface is distinct from nullif(channel, '')`).toEqual([])
})

test('more people than a page has are all there', async () => {
  const at = new Date('2026-03-02T09:30:00Z')
  const rows = Array.from({ length: 5000 }, (_, n) => ({
    scope_id: orgs.acme, org_id: orgs.acme, actor_id: `30000000-0000-4000-8000-${String(n).padStart(12, '0')}`,
    occurred_at: at, event_id: uuidV7(at), event: n % 2 ? 'Odd' : 'Even', source: 'client',
  }))
  for (let n = 0; n < rows.length; n += 1000) await sql`insert into public.events ${sql(rows.slice(n, n + 1000))}`
  await sql`select tracking.roll_up(3000)`
  await rollUp()
  await expectDaysOfTheLog()
  expect(await sql`select distinct page from tracking.days order by 1`).toEqual([{ page: 0 }, { page: 1 }])
  await sql`insert into public.events ${sql({ ...rows[0]!, event_id: uuidV7(at), actor_id: people.ada })}`
  for (const org of [null, orgs.acme]) {
    const found = await sql`select active::int, new::int from analytics.active(period => 'day', org => ${org})`
    expect(found).toEqual([{ active: 5001, new: 5001 }])
  }
})

test.each<[string, Caller, string[]]>([
  ['ada', person(people.ada), [orgs.demo, orgs.acme]], ['bob', person(people.bob), [orgs.acme]], ['cyd, of one app,', person(people.cyd), []],
  ['eve', person(people.eve), [orgs.evil]], ['nik', person(people.nik), []], ['the key acme_admin', holderOf('as_local_acme_admin'), [orgs.acme]],
  ['nobody', nobody, []],
])('%s sees the days of their orgs and no others', async (_, who, circles) => {
  await sendAll(2)
  await send(person(people.ada), [{ event: 'A', tracking_version: 2, org_id: orgs.demo, ...on(2) }])
  await rollUp()
  await as(sql, who, async (tx) => {
    expect((await tx`select distinct circle from tracking.members order by 1`).map(({ circle }) => circle)).toEqual(circles)
    expect((await tx`select distinct k.scope_id from tracking.days join tracking.kinds as k using (kind_id) where k.event = '' order by 1`)
      .map(({ scope_id }) => scope_id)).toEqual(circles)
  })
})

test('nobody is answered by the circles of everybody for an org with their ids, nor reads them, whatever ids a project gives its orgs', async () => {
  await send(person(people.ada), [{ ...acme, event: 'A', ...on(2) }])
  await rollUp()
  for (const org of [everybody, allOrgs]) {
    await sql.begin(async (tx) => {
      await tx`insert into orgs (id, name) values (${org!}, 'Nil')`
      await tx`insert into tracking.role_bindings (principal_id, role, org_id) values (${people.nik}, 'viewer', ${org!})`
      await tx`set local role authenticated`
      await tx`select set_config('request.jwt.claims', ${JSON.stringify({ role: 'authenticated', sub: people.nik })}, true)`
      expect(await tx`select * from org.readable()`).toHaveLength(1)
      expect(await tx`select * from tracking.days`).toEqual([])
      expect(await tx`select * from tracking.members`).toEqual([])
      await tx`set local role analyst`
      expect(await tx`select * from analytics.activity(org => ${org!})`).toEqual([])
      expect(await tx`select * from analytics.active(org => ${org!})`).toEqual([])
      expect(await tx`select * from analytics.retention('A', org => ${org!})`).toEqual([])
      expect(await tx`select * from analytics.surfaces(org => ${org!}) where actors > 0`).toEqual([])
      throw undo
    }).catch((error: unknown) => { if (error !== undo) throw error })
  }
})
const undo = new Error('Undo.')
