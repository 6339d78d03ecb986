import { createHash, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Sql } from 'postgres'
import { connect } from '../src/database.ts'
import { singleContest } from './contests.ts'
import { openDuck, type Duck } from './duckdb.ts'
import type { Contender, Contest } from './measure.ts'
import { populate } from './population.ts'
import { questions, type Dialect, type Question } from './questions.ts'
import { urlOf } from './race.ts'
import type { Ring } from './ring.ts'

/** Whom a question is about: an org, or (without an id) all of them. */
type Subject = { readonly name: string, readonly id?: string, readonly events: number }

/** A log of some length, the same in DuckDB, and whom to ask about. */
type Library = {
  readonly length: number
  readonly analyst: Sql
  readonly duck: Duck
  readonly subjects: readonly Subject[]
  /** The org that has the same events in a log of any length. */
  readonly steady: Subject
  /** A connection as the API's, of somebody who may read an org and nothing else. */
  readerOf(org: Subject): Sql
  close(): Promise<void>
}

/**
 * Each function of analytics, beside the same question without the rollup, in plain SQL, and in DuckDB; then under
 * policies instead of granted rights, and in the midst of more and more of other orgs' events.
 */
export async function* readingContests(ring: Ring, lengths: readonly number[]): AsyncGenerator<Contest> {
  const libraries: Library[] = []
  try {
    for (const length of lengths) libraries.push(await furnish(ring, length))
    for (const library of libraries) {
      for (const question of questions) {
        for (const subject of library.subjects) yield await answerContest(library, question, subject)
      }
    }
    for (const question of questions) {
      for (const org of libraries.at(-1)!.subjects) {
        if (org.id) yield policyContest(libraries.at(-1)!, question, org)
      }
    }
    for (const question of questions) yield growthContest(libraries, question)
  } finally {
    for (const { close } of libraries) await close()
  }
}

/** A question about a subject, asked of this package, the log and DuckDB, who must all give the same answer. */
async function answerContest({ length, analyst, duck }: Library, question: Question, subject: Subject): Promise<Contest> {
  const own = callOf(question, subject)
  const withoutRollup = async <T>(ask: () => Promise<T>) => {
    await analyst`set actorscope.rollups = off`
    return ask().finally(() => analyst`set actorscope.rollups = on`)
  }
  const plain = queryOf(question, subject, 'postgres')
  const ducks = queryOf(question, subject, 'duckdb')
  const answers = {
    'analytics': await digest(rowsOf(analyst, own)),
    'without rollup': await withoutRollup(() => digest(rowsOf(analyst, own))),
    'plain SQL': await digest(rowsOf(analyst, plain)),
    'DuckDB': await digest(duck.ask(ducks)),
  }
  if (new Set(Object.values(answers)).size > 1) {
    throw new Error(`${question.name}, ${subject.name}: the answers differ. ${JSON.stringify(answers)}`)
  }
  return {
    name: `${question.name}, ${titleOf(subject)}, log of ${millions(length)}`,
    unit: 'ms',
    isDurable: true,
    isTimed: true,
    contenders: [
      { name: 'analytics', run: () => time(() => count(analyst, own)) },
      ...question.isRolledUp ? [{ name: 'without rollup', run: () => withoutRollup(() => time(() => count(analyst, own))) }] : [],
      { name: 'plain SQL', run: () => time(() => count(analyst, plain)) },
      { name: 'DuckDB', run: () => time(() => duck.run(ducks)) },
    ],
  }
}

/** What policies cost: a question about an org, asked by who may read all, and by who may read this org. */
function policyContest({ analyst, readerOf }: Library, question: Question, org: Subject): Contest {
  const reader = readerOf(org)
  const call = callOf(question, org)
  return {
    name: `${question.name}, ${titleOf(org)}, rights`,
    unit: 'ms',
    isDurable: true,
    isTimed: true,
    contenders: [
      { name: 'granted outright', run: () => time(() => count(analyst, call)) },
      { name: 'by policies', run: () => time(() => count(reader, call)) },
    ],
  }
}

/** What other orgs' events cost an org. */
function growthContest(libraries: readonly Library[], question: Question): Contest {
  return {
    name: `${question.name}, an org of ${libraries[0]!.steady.events.toLocaleString('en')} events`,
    unit: 'ms',
    isDurable: true,
    isTimed: true,
    contenders: libraries.map(({ length, analyst, steady }): Contender => ({
      name: `in a log of ${millions(length)}`, run: () => time(() => count(analyst, callOf(question, steady))),
    })),
  }
}

/** What it costs those who send events that the rollup follows. */
export function rollupContest(ring: Ring): Contest {
  const send = singleContest(ring).contenders.at(-1)!
  const besideRollup = async () => {
    let isDone = false
    const rollUp = async () => {
      while (!isDone) {
        await ring.sql`select tracking.roll_up()`
        await sleep(1000)
      }
    }
    const rolling = rollUp()
    return send.run().finally(async () => { isDone = true; await rolling })
  }
  return {
    name: 'track_event beside the rollup',
    unit: 'events/s',
    isDurable: true,
    contenders: [
      { name: 'no rollup', run: send.run },
      { name: 'no rollup, again', run: send.run },
      { name: 'rolled up each second', run: besideRollup },
    ],
  }
}


// Asking --------------------------------------------------------------------------------------------

const titleOf = ({ name, events }: Subject): string => `${name} (${events.toLocaleString('en')} events)`
const millions = (length: number): string => `${length / 1e6} million`
const callOf = ({ call }: Question, { id }: Subject): string => call(id ? `, org => '${id}'` : '')
const queryOf = ({ write }: Question, { id }: Subject, dialect: Dialect): string =>
  write((column) => id ? `${column} = '${id}'` : 'true', dialect)

/** Has a question answered, all columns of all rows, and the rows counted: the way to this process is not measured. */
const count = (sql: Sql, query: string): Promise<unknown> => sql.unsafe(`select count(q) from (${query}) as q`)

/** The milliseconds that something takes: at a median of as many times as go into a twentieth of a second. */
async function time(work: () => Promise<unknown>): Promise<number> {
  const times: number[] = []
  for (let all = 0; all < 50; all += times.at(-1)!) {
    const startedAt = performance.now()
    await work()
    times.push(performance.now() - startedAt)
  }
  return times.sort((a, b) => a - b)[Math.floor(times.length / 2)]!
}

async function* rowsOf(sql: Sql, query: string): AsyncIterable<unknown[][]> {
  for await (const rows of sql.unsafe(query).cursor(5000)) yield rows.map((row) => Object.values(row))
}

/** A number of rows and a number for what they say, in whatever order they come. */
async function digest(portions: AsyncIterable<unknown[][]>): Promise<string> {
  let [rows, sum] = [0, 0n]
  for await (const portion of portions) {
    for (const row of portion) {
      rows++
      sum += createHash('sha1').update(row.map(spell).join('|')).digest().readBigUInt64BE()
    }
  }
  return `${rows} rows, ${(sum % 2n ** 64n).toString(16)}`
}

/** A value as both databases have it: times without zone or trailing zeros, and numbers to three digits. */
function spell(value: unknown): string {
  if (value === null) return ''
  const text = value instanceof Date ? value.toISOString() : String(value)
  if (/^-?\d+(\.\d+)?(e-?\d+)?$/.test(text)) return String(Math.round(Number(text) * 1000 + 1e-3) / 1000)
  const [, time] = /^(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d(?:\.\d+)?)?)(?:Z|\+00)?$/.exec(text) ?? []
  return time ? new Date(`${time.replace(' ', 'T')}${time.length > 10 ? 'Z' : ''}`).toISOString() : text
}


// Furnishing ----------------------------------------------------------------------------------------

/** Makes a database with a log, its rollup, and the same in DuckDB; and says what that took. */
async function furnish(ring: Ring, length: number): Promise<Library> {
  const sql = await ring.furnish(`reading_${length}`)
  await sql`update tracking.settings set api_logins = api_logins || session_user::name`
  const written = await populate(sql, length)
  const rolledUp = await rollUp(sql, length)
  const duck = await openDuck(sql, ring.folder)
  const [sizes] = await sql<{ log: number, rollup: number, hours: number, days: number }[]>`
    select sum(pg_total_relation_size(t.oid)) filter (where t.relname like 'events%')::float / 2 ^ 20 as log,
           sum(pg_total_relation_size(t.oid)) filter (where t.relname in ('activity', 'kinds'))::float / 2 ^ 20 as hours,
           sum(pg_total_relation_size(t.oid)) filter (where t.relname in ('days', 'members'))::float / 2 ^ 20 as days
    from   pg_class as t
    where  t.relnamespace in ('public'::regnamespace, 'tracking'::regnamespace)
    and    t.relkind in ('r', 'p')`
  const round = (figure: number) => Math.round(figure).toLocaleString('en')
  console.error(`log of ${millions(length)}: written with ${round(written)} events/s, rolled up with ${round(rolledUp)} events/s; ` +
    `${round(sizes!.log)} MB, its rollup ${round(sizes!.hours)} MB of hours and ${round(sizes!.days)} MB of days, DuckDB ${round(duck.size)} MB`)

  const subjects = await chooseOrgs(sql)
  const connectAs = (connection: Record<string, string>) =>
    connect(urlOf(sql), { max: 1, connection: { timezone: 'UTC', work_mem: '64MB', ...connection } as never })
  const analyst = connectAs({ role: 'analyst' })
  const readers = new Map<string, Sql>()
  for (const { id } of subjects) {
    if (!id) continue
    const sub = randomUUID()
    await sql`insert into tracking.role_bindings (principal_id, role, org_id) values (${sub}, 'viewer', ${id})`
    readers.set(id, connectAs({ 'role': 'authenticated', 'request.jwt.claims': JSON.stringify({ sub, role: 'authenticated' }) }))
  }
  return {
    length, analyst, duck, subjects,
    steady: await steadyOrg(sql),
    readerOf: (org) => readers.get(org.id!)!,
    close: async () => {
      duck.close()
      await Promise.all([analyst, ...readers.values()].map((connection) => connection.end({ timeout: 1 })))
    },
  }
}

/** Brings the rollup up to date, and says how many events a second it took. */
async function rollUp(sql: Sql, length: number): Promise<number> {
  const startedAt = performance.now()
  for (let added = 1; added > 0;) {
    const [row] = await sql<{ added: string }[]>`select tracking.roll_up() as added`
    added = Number(row!.added)
  }
  const eventsPerSecond = length / (performance.now() - startedAt) * 1000
  await sql.unsafe('vacuum analyze')
  return eventsPerSecond
}

/** A small, a median and the largest org, and all of them. */
async function chooseOrgs(sql: Sql): Promise<Subject[]> {
  return await sql<Subject[]>`
    with counted as (
      select k.org_id, sum(cardinality(a.times))::integer as events, row_number() over (order by sum(cardinality(a.times))) as place
      from   tracking.activity as a
      join   tracking.kinds as k using (kind_id)
      join   bench.orgs as o on o.org_id = k.org_id and o.rank > 0
      group  by k.org_id
    ),
    chosen as (
      select 'a small org' as name, c.org_id::text as id, c.events, c.place from counted as c where c.place = (select count(*) / 10 + 1 from counted)
      union  all
      select 'the median org', c.org_id::text, c.events, c.place from counted as c where c.place = (select count(*) / 2 + 1 from counted)
      union  all
      select 'the largest org', c.org_id::text, c.events, c.place from counted as c where c.place = (select count(*) from counted)
      union  all
      select 'all orgs', null, (select sum(cardinality(a.times))::integer from tracking.activity as a), 1000000
    )
    select c.name, c.id, c.events from chosen as c order by c.place`
}

async function steadyOrg(sql: Sql): Promise<Subject> {
  const [org] = await sql<Subject[]>`
    select 'org 0' as name, o.org_id::text as id, (select count(*)::integer from public.events as e where e.scope_id = o.org_id) as events
    from   bench.orgs as o
    where  o.rank = 0`
  return org!
}
