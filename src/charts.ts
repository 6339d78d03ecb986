import { asTable, noRoomFor, widthOf, type Cell, type Column } from './table.ts'
import { visible, type Colors } from './terminal.ts'

/** What a chart is drawn on. */
export type Canvas = { colors: Colors, /** In cells of the terminal. */ width: number }

/** What was asked, as far as a chart speaks of it. */
export type Asked = { by?: string, period?: string, breakdown?: string }


// funnel --------------------------------------------------------------------------------------------

export type FunnelRow = {
  breakdown: string | null
  step: number
  event: string
  subjects: number
  conversion: number | null
  step_conversion: number | null
  median_seconds: number | null
}

/** How many came to each step; a group for each value, where it is broken down. */
export function funnel(rows: FunnelRow[], asked: Asked, { colors, width }: Canvas): string[] {
  const isBroken = asked.breakdown !== undefined
  const columns: Column[] = [
    ...(isBroken ? [{ heading: visible(asked.breakdown!), shrinks: true, style: colors.bold }] : []),
    { heading: '', style: colors.dim }, { heading: 'step', shrinks: true }, { heading: '', style: colors.cyan },
    number(subjectsOf(asked)), number('of all', colors.bold), number('of step'), number('median'),
  ]
  const cells = rows.map(({ breakdown, step, event, subjects, conversion, step_conversion, median_seconds }) => [
    ...(isBroken ? [step === 1 ? visible(breakdown ?? '(none)') : ''] : []),
    String(step), visible(event), drawBar(conversion ?? 0), count(subjects),
    percent(conversion), ...(step === 1 ? ['', ''] : [percent(step_conversion), span(median_seconds)]),
  ])
  return withHeadings(asTable(columns, cells, width), colors)
}


// retention -----------------------------------------------------------------------------------------

export type RetentionRow = { cohort: string, size: number, period: number, subjects: number, share: number | null }

/** A grid: a line a cohort, a column a period after it, the brighter the more came back; below it, all together. */
export function retention(rows: RetentionRow[], asked: Asked, { colors, width }: Canvas): string[] {
  const { period = 'week' } = asked
  const periods = [...new Set(rows.map((row) => row.period))].sort((a, b) => a - b)
  const cohorts = [...new Set(rows.map((row) => row.cohort))].map((cohort) => rows.filter((row) => row.cohort === cohort))
  const all = count(total(cohorts.map((of) => of[0]!), 'size'))
  const room = width - '2026-01-01  actors  '.length - Math.max(all.length - 'actors'.length, 0)
  const shown = periods.slice(0, Math.max(1, Math.floor(room / GRID_CELL)))
  const grid = (of: RetentionRow[]) => shown.map((n) => shade(of.filter((row) => row.period === n), colors)).join('')
  const cells = [...cohorts.map((of) => [dateOf(of[0]!.cohort, period), count(of[0]!.size), grid(of)]), ['all', all, grid(rows)]]
  const heading = shown.map((n) => `${n} `.padStart(GRID_CELL)).join('')
  const lines = asTable([period, number(subjectsOf(asked)), heading], cells)
  const missing = periods.slice(shown.length).map(String)
  return withHeadings(missing.length > 0 ? [...lines, noRoomFor(missing, width)] : lines, colors)
}

const GRID_CELL = 5
/** From few to all: colours of xterm's 256 that differ in brightness too, and what is written on each. */
const SHADES = [[53, 231], [60, 231], [31, 231], [36, 16], [77, 16], [220, 16]] as const

/** The share of those who came back, on a ground that shows it; nothing where the period has not come. */
function shade(rows: RetentionRow[], { isColorSupported }: Colors): string {
  const size = total(rows, 'size')
  if (size === 0) return ' '.repeat(GRID_CELL)
  const share = total(rows, 'subjects') / size
  const text = `${Math.round(share * 100)}% `.padStart(GRID_CELL)
  const [ground, ink] = SHADES[Math.min(Math.floor(share * SHADES.length), SHADES.length - 1)]!
  return isColorSupported && share > 0 ? `\u001b[38;5;${ink};48;5;${ground}m${text}\u001b[39;49m` : text
}


// active --------------------------------------------------------------------------------------------

export type ActiveRow = { period: string, active: number, new: number, returning: number, resurrected: number }

/** How many were active, and who they were: came back, came back after a break, or were never seen before. */
export function active(rows: ActiveRow[], asked: Asked, { colors, width }: Canvas): string[] {
  const { period = 'day' } = asked
  const kinds = [['returning', colors.blue], ['resurrected', colors.yellow], ['new', colors.green]] as const
  const most = Math.max(...rows.map((row) => row.active))
  const columns = [
    period, { heading: '' }, number(subjectsOf(asked), colors.bold), ...kinds.map(([kind]) => number(kind))]
  const cells = rows.map((row) => [
    dateOf(row.period, period), drawStack(kinds.map(([kind, color]) => [row[kind], color]), most),
    count(row.active), ...kinds.map(([kind]) => count(row[kind]))])
  return [legend(kinds), ...withHeadings(asTable(columns, cells, width), colors)]
}


// builds --------------------------------------------------------------------------------------------

export type BuildsRow = {
  period: string
  by_value: string | null
  builds: number
  succeeded: number
  failed: number
  success_rate: number | null
  p50_run_seconds: number | null
  p95_run_seconds: number | null
  p50_queue_seconds: number | null
  p95_queue_seconds: number | null
  failure_categories: Record<string, number> | null
  median_seconds_to_green: number | null
  flakiness: number | null
}

/** How builds went, a line a period; and why they failed. */
export function builds(rows: BuildsRow[], asked: Asked, { colors, width }: Canvas): string[] {
  const { period = 'week', by } = asked
  const kinds = [['succeeded', colors.green], ['failed', colors.red], ['otherwise', colors.dim]] as const
  const most = Math.max(...rows.map((row) => row.builds))
  const columns: Column[] = [
    { heading: period }, ...(by === undefined ? [] : [{ heading: visible(by), shrinks: true }]), { heading: '' },
    number('builds'), number('success', colors.bold), number('run'), number('p95'), number('to fix'),
    ...['flaky', 'queue', 'p95'].map((heading) => ({ ...number(heading), optional: true })),
  ]
  const cells = rows.map((row, i) => [
    row.period === rows[i - 1]?.period ? '' : dateOf(row.period, period),
    ...(by === undefined ? [] : [visible(row.by_value ?? '(none)')]),
    drawStack(kinds.map(([kind, color]) => [kind === 'otherwise' ? row.builds - row.succeeded - row.failed : row[kind], color]), most),
    count(row.builds), percent(row.success_rate), span(row.p50_run_seconds), span(row.p95_run_seconds),
    span(row.median_seconds_to_green), percent(row.flakiness, 0), span(row.p50_queue_seconds), span(row.p95_queue_seconds),
  ])
  return [legend(kinds), ...withHeadings(asTable(columns, cells, width), colors), ...failures(rows, { colors, width })]
}

function failures(rows: BuildsRow[], { colors, width }: Canvas): string[] {
  const categories = new Map<string, number>()
  for (const [category, n] of rows.flatMap((row) => Object.entries(row.failure_categories ?? {}))) {
    categories.set(category, (categories.get(category) ?? 0) + n)
  }
  const sorted = [...categories].sort(([, a], [, b]) => b - a)
  const cells = sorted.map(([category, n]) => [visible(category), drawBar(n / sorted[0]![1]), count(n)])
  const columns = [{ heading: 'why builds failed', shrinks: true }, { heading: '', style: colors.red }, number('builds')]
  return sorted.length > 0 ? ['', ...withHeadings(asTable(columns, cells, width), colors)] : []
}


// surfaces ------------------------------------------------------------------------------------------

export type SurfacesRow = {
  surfaces: string[]
  actors: number
  actors_at_least: number
  orgs: number
  orgs_at_least: number
}

/** Each combination of surfaces, as dots where they have room, and how many were seen on exactly these. */
export function surfaces(rows: SurfacesRow[], _: Asked, { colors, width }: Canvas): string[] {
  const known = [...new Set(rows.flatMap((row) => row.surfaces))].map(visible)
  // Of many surfaces there are too many combinations to show those that nobody is seen on.
  const shown = rows.filter((row) => known.length <= 3 || row.actors_at_least > 0 || row.orgs_at_least > 0)
  const most = Math.max(...shown.map((row) => row.actors))
  const table = (columns: Column[], combination: (row: SurfacesRow) => Cell[]) => asTable([
    ...columns, { heading: '', style: colors.cyan },
    number('actors', colors.bold), number('or more'), number('orgs', colors.bold), number('or more'),
  ], shown.map((row) => [
    ...combination(row), drawBar(row.actors / most),
    count(row.actors), count(row.actors_at_least), count(row.orgs), count(row.orgs_at_least)]), width)
  const names = (row: SurfacesRow) => row.surfaces.map(visible)
  const dots = table(known.map((heading) => ({ heading, style: colors.cyan })), (row) =>
    known.map((name) => below(name, names(row).includes(name) ? '●' : '·')))
  const lines = widthOf(dots[0]!) <= width ? dots
    : table([{ heading: 'surfaces', shrinks: true }], (row) => [names(row).join(' + ')])
  return withHeadings(lines, colors)
}

/** A mark below the middle of a heading. */
const below = (heading: string, mark: string): string => mark.padStart(Math.ceil(heading.length / 2))


// paths ---------------------------------------------------------------------------------------------

export type PathsRow = {
  step: number
  source: string
  target: string | null
  paths: number
  actors: number
  median_seconds: number | null
}

/** How many of a step's ways are shown. */
const WAYS = 10

/** Where the paths went, step by step: the most trodden ways, and how many others there are. */
export function paths(rows: PathsRow[], _: Asked, { colors, width }: Canvas): string[] {
  const most = Math.max(...rows.map((row) => row.paths))
  const steps = [...new Set(rows.map((row) => row.step))].map((step) => rows.filter((row) => row.step === step))
  const columns: Column[] = [
    { heading: '', style: colors.dim }, { heading: 'after', shrinks: true }, { heading: '', style: colors.dim },
    { heading: 'came', shrinks: true }, { heading: '', style: colors.cyan },
    number('paths', colors.bold), number('actors'), number('median')]
  const cells = steps.flatMap((ways) => {
    const others = ways.slice(WAYS)
    const shown = ways.slice(0, WAYS).map((way, i): Cell[] => [
      i === 0 ? `${way.step}` : '', way.source === ways[i - 1]?.source ? '' : visible(way.source), '→',
      visible(way.target ?? '(the end)'), drawBar(way.paths / most),
      count(way.paths), count(way.actors), span(way.median_seconds)])
    return others.length === 0 ? shown : [...shown, ['', '', '', `${count(others.length)} others`, '', count(total(others, 'paths'))]]
  })
  return withHeadings(asTable(columns, cells, width), colors)
}


// sessions ------------------------------------------------------------------------------------------

export type SessionsRow = {
  actor_id: string
  started_at: string
  ended_at: string
  seconds: number
  events: number
  first_event: string
  last_event: string
  surfaces: string[] | null
  orgs: string[] | null
}

/** The sessions, the newest first. */
export function sessions(rows: SessionsRow[], _: Asked, { colors, width }: Canvas): string[] {
  const columns: Column[] = [
    { heading: 'began (UTC)', style: colors.dim }, number('took', colors.bold), number('events'),
    { heading: 'actor', style: colors.green }, { heading: 'surfaces', shrinks: true, style: colors.cyan },
    { heading: 'first event', shrinks: true }, { heading: 'last event', shrinks: true, optional: true }]
  const idOf = (id: string) => (width < 130 ? `${id.slice(0, 4)}…${id.slice(-4)}` : id)
  const cells = rows.map((row) => [
    timeOf(row.started_at), span(row.seconds), count(row.events), idOf(row.actor_id),
    visible((row.surfaces ?? []).join(' ')), visible(row.first_event), visible(row.last_event)])
  return withHeadings(asTable(columns, cells, width), colors)
}


// activity ------------------------------------------------------------------------------------------

export type ActivityRow = { period: string, events: number, actors: number, orgs: number }

/** How much happened: three lines to take in at a glance, and a line a period. */
export function activity(rows: ActivityRow[], asked: Asked, { colors, width }: Canvas): string[] {
  const { period = 'day' } = asked
  const kinds = [['events', colors.cyan], ['actors', colors.green], ['orgs', colors.magenta]] as const
  const most = (kind: 'events' | 'actors' | 'orgs') => Math.max(...rows.map((row) => row[kind]))
  const glance = kinds.map(([kind, color]) => [
    kind, color(sparkline(rows.map((row) => row[kind]), width - 30)), `at most ${count(most(kind))} ${period === 'hour' ? 'an' : 'a'} ${visible(period)}`])
  const columns = [`${visible(period)} (UTC)`, { heading: '', style: colors.cyan }, ...kinds.map(([kind]) => number(kind))]
  const cells = rows.map((row) => [
    dateOf(row.period, period), drawBar(row.events / most('events')), ...kinds.map(([kind]) => count(row[kind]))])
  return [...asTable(['', '', ''], glance).slice(1), '', ...withHeadings(asTable(columns, cells, width), colors)]
}


// What they are made of -----------------------------------------------------------------------------

const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉']
const LEVELS = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
/** What the parts of a stack are made of, so that they can be told apart without colours. */
const FILLS = ['█', '▓', '░']

/** A bar of a share of a width, exact to an eighth of a cell; what is not nothing can be seen. */
export function bar(share: number, width: number): string {
  const parts = share > 0 ? Math.max(Math.round(share * width * EIGHTHS.length), 1) : 0
  return '█'.repeat(Math.floor(parts / EIGHTHS.length)) + EIGHTHS[parts % EIGHTHS.length]
}

/** Numbers as a line of blocks, no longer than `width`: where there are more, the highest of some neighbours. */
export function sparkline(numbers: number[], width: number): string {
  const most = Math.max(...numbers)
  const together = Math.ceil(numbers.length / width)
  const marks = Array.from({ length: Math.ceil(numbers.length / together) }, (_, i) =>
    Math.max(...numbers.slice(i * together, (i + 1) * together)))
  return marks.map((mark) => LEVELS[most > 0 ? Math.ceil(mark / most * (LEVELS.length - 1)) : 0]).join('')
}

function drawBar(share: number): Cell {
  return (width) => bar(Number.isFinite(share) ? share : 0, width)
}

type Part = [number, (text: string) => string]

/** A bar of parts. `most` is what fills the width; each part ends where the sum so far does. */
function drawStack(parts: Part[], most: number): Cell {
  return (width) => {
    let [sum, end] = [0, 0]
    return parts.map(([part, color], i) => {
      const start = end
      sum += part
      end = most > 0 ? Math.round(sum / most * width) : 0
      return end > start ? color(FILLS[i]!.repeat(end - start)) : ''
    }).join('')
  }
}

function legend(kinds: readonly (readonly [string, (text: string) => string])[]): string {
  return kinds.map(([kind, color], i) => `${color(FILLS[i]!)} ${kind}`).join('  ')
}

function withHeadings([headings = '', ...lines]: string[], colors: Colors): string[] {
  return [colors.dim(headings), ...lines]
}

function number(heading: string, style?: (text: string) => string): Column {
  return { heading, align: 'right', style }
}

function subjectsOf({ by = 'actor' }: Asked): string {
  return by === 'org' ? 'orgs' : 'actors'
}

function total<Name extends string>(rows: Record<Name, number>[], name: Name): number {
  return rows.reduce((sum, row) => sum + row[name], 0)
}

const count = (n: number): string => n.toLocaleString('en')

function percent(share: number | null, digits = 1): string {
  return share === null ? '–' : `${(share * 100).toFixed(digits)}%`
}

/** Seconds as people say them, to two digits or three: 850ms, 2.5s, 45s, 12m, 1.5h, 3d. */
export function span(seconds: number | null): string {
  if (!seconds) return seconds === null ? '–' : '0s'
  const [size, unit] = UNITS.find(([least]) => seconds >= least * 0.9995) ?? UNITS.at(-1)!
  const amount = seconds / size
  return `${amount.toFixed(amount < 9.95 && unit !== 'ms' ? 1 : 0).replace(/\.0$/, '')}${unit}`
}

const UNITS: [number, string][] = [[86_400, 'd'], [3600, 'h'], [60, 'm'], [1, 's'], [0.001, 'ms']]

/** A period by its beginning, in UTC, as far as it says something. */
function dateOf(time: string, period: string): string {
  return period === 'hour' ? timeOf(time) : time.slice(0, period === 'month' ? 7 : 10)
}

const timeOf = (time: string): string => time.slice(0, 16).replace('T', ' ')
