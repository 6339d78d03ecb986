import type { SupabaseClient } from '@supabase/supabase-js'
import type { Sql } from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { connect } from '../src/database.ts'
import { orgs } from './demo.ts'
import { createWorld, type World } from './world.ts'

let world: World
let ada: SupabaseClient
let eve: SupabaseClient

beforeAll(async () => {
  world = await createWorld()
  ada = await world.signIn('ada@acme.test')
  eve = await world.signIn('eve@evil.test')
})
afterAll(() => world.close())

test('each event is read once, by who may read it', async () => {
  const adas = await readerOf(ada)
  const eves = await readerOf(eve)
  await track(ada, 'First', 'Second')
  expect(await adas.next()).toEqual(['First', 'Second'])
  expect(await adas.next()).toEqual([])
  await track(ada, 'Third')
  expect(await adas.next()).toEqual(['Third'])
  expect(await eves.next()).toEqual([])
})

test('an event that commits late is read then, though later ones were read before', async () => {
  // Given an event whose transaction is still open when the reader begins
  const reader = await readerOf(ada)
  const [late, beforeReader] = [await openTransaction('Late'), await openTransaction('Older than the reader')]
  const second = await readerOf(ada)

  // When others begin after it and commit before it
  await track(ada, 'Early')
  expect(await reader.next()).toEqual(['Early'])
  await track(ada, 'Earlier than late')
  expect(await reader.next()).toEqual(['Earlier than late'])
  await late.commit()

  // Then it is read as soon as it is there, once
  expect(await reader.next()).toEqual(['Late'])
  await beforeReader.commit()
  expect(await reader.next()).toEqual(['Older than the reader'])
  expect(await reader.next()).toEqual([])
  expect(await second.next()).toEqual(['Late', 'Older than the reader', 'Early', 'Earlier than late'])
})

test('what is rolled back is never read', async () => {
  const reader = await readerOf(ada)
  const transaction = await openTransaction('Undone')
  await transaction.rollback()
  await track(ada, 'Done')
  expect(await reader.next()).toEqual(['Done'])
})

test.each([1, 2, 3, 7, 10, 11])('many events come in portions of %i, none twice and none left out, while more are written', async (portion) => {
  const reader = await readerOf(ada)
  const late = await openTransaction('Late')
  const names = Array.from({ length: 10 }, (_, n) => `Event ${n}`)
  await track(ada, ...names)
  const read = await reader.next(portion)
  await late.commit()
  await track(ada, 'After')
  for (let empty = 0; empty < 2;) { // the first one may end what was there when it was cut
    const events = await reader.next(portion)
    read.push(...events)
    empty = events.length === 0 ? empty + 1 : 0
  }
  expect(read.toSorted()).toEqual([...names, 'Late', 'After'].toSorted())
})

test('who reads in the midst of a transaction reads on from there when it is committed', async () => {
  const session = await world.sql.reserve()
  const other = connect(world.databaseUrl, { max: 1 })
  const write = (on: Sql, event: string) => on`
    insert into events (scope_id, org_id, occurred_at, event_id, event, source)
    select ${orgs.acme}, ${orgs.acme}, tracking.event_time(i.id), i.id, ${event}, 'service' from tracking.new_event_id(clock_timestamp()) as i (id)`
  const read = async (after: unknown) => (await session`select read_events(${session.json(after as never)}) as answer`)[0]!.answer
  const begun = await read(null)
  await session`begin`
  await write(session, 'Before')
  await write(other, 'Of another')
  const amid = await read(begun.cursor)
  await write(session, 'After')
  await session`commit`
  const end = await read(amid.cursor)
  const names = ({ events }: { events: { event: string }[] }) => events.map(({ event }) => event)
  expect([names(amid), names(end)]).toEqual([['Of another'], ['Before', 'After']])
  session.release()
  await other.end()
})

/** Somebody who reads on from where they were. */
async function readerOf(supabase: SupabaseClient) {
  let after: unknown = null
  const next = async (maxEvents?: number): Promise<string[]> => {
    const { data, error } = await supabase.rpc('read_events', { after, max_events: maxEvents })
    expect(error).toBeNull()
    after = data.cursor
    return data.events.map(({ event }: { event: string }) => event)
  }
  expect(await next()).toEqual([])
  return { next }
}

async function track(supabase: SupabaseClient, ...names: string[]): Promise<void> {
  const { data } = await supabase.rpc('track_events', {
    v2: names.map((event) => ({ event, tracking_version: 2, org_id: orgs.acme })) })
  expect(data.accepted).toBe(names.length)
}

/** Writes an event of Acme's and leaves its transaction open. */
async function openTransaction(event: string) {
  const connection = await world.sql.reserve()
  await connection`begin`
  await connection`
    insert into events (scope_id, org_id, occurred_at, event_id, event, source)
    select ${orgs.acme}, ${orgs.acme}, tracking.event_time(i.id), i.id, ${event}, 'service'
    from   tracking.new_event_id(now()) as i (id)`
  const end = async (statement: 'commit' | 'rollback') => { await connection.unsafe(statement); connection.release() }
  return { commit: () => end('commit'), rollback: () => end('rollback') }
}
