import type { Sql } from 'postgres'
import { runFile } from '../src/database.ts'
import { ProgressBar } from '../src/progress-bar.ts'
import { Terminal } from '../src/terminal.ts'

/** So many events a transaction, as far as the log knows. */
const perTransaction = 10

/** Writers at a time, each with a month of its own. */
const writers = 2

/**
 * Fills the log with a year of 1,000 organizations, always the same one, and makes the builds that it tells of.
 *
 * @returns events a second that were written.
 */
export async function populate(sql: Sql, count: number): Promise<number> {
  await runFile(sql, 'bench/population.sql')
  await sql`select tracking.make_partition(m) from generate_series(timestamp '2025-01-01', '2026-01-01', '1 month') as m`
  const transactions = Math.ceil(count / perTransaction)
  const [{ first } = { first: 0 }] = await sql<{ first: number }[]>`select pg_current_xact_id()::text::integer as first`
  await sql.unsafe(`call bench.use_transactions(${transactions})`)

  const startedAt = performance.now()
  const bar = new ProgressBar(new Terminal(process.stdout, process.stderr, process.env), count)
  const months = await planMonths(sql, count)
  let recorded = 0
  const write = async () => {
    for (let days = months.shift(); days; days = months.shift()) {
      for (const { day, events, before } of days) {
        const txids = [first + Math.floor(transactions * before / count), Math.ceil(transactions * events / count)]
        await sql.unsafe(`call bench.write_day('${day}', ${events}, ${txids.join()})`)
        bar.show(recorded += events, { recorded, duplicates: 0, dropped: 0 })
      }
    }
  }
  await Promise.all(Array.from({ length: writers }, write))
  bar.hide()
  const eventsPerSecond = count / (performance.now() - startedAt) * 1000

  await sql`alter table public.build_requests disable trigger user`
  await sql`call bench.make_builds()`
  await sql`alter table public.build_requests enable trigger user`
  await sql.unsafe('vacuum analyze')
  return eventsPerSecond
}

type Day = { readonly day: string, readonly events: number, readonly before: number }

/** The days of each month, with the events that fall on each, and how many there are before it. */
async function planMonths(sql: Sql, count: number): Promise<Day[][]> {
  const days = await sql<{ day: string, share: number }[]>`select day::text, share from bench.days order by day`
  const months = new Map<string, Day[]>()
  let [share, before] = [0, 0]
  for (const { day, ...own } of days) {
    share += own.share
    const events = Math.round(count * share) - before
    const month = day.slice(0, 7)
    months.set(month, [...months.get(month) ?? [], { day, events, before }])
    before += events
  }
  return [...months.values()]
}
