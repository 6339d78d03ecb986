import * as charts from './charts.ts'
import { interval, periodAgo, property, wholeNumber } from './cli-options.ts'

/** A row of an answer. */
export type Row = Record<string, unknown>

/** What may be said with a question: a flag, or what stands behind the command, and the function's argument that it is. */
export type Setting = {
  argument: string
  flags: string
  help: string
  parse?: (text: string, before?: any) => unknown
}

/** A question that the command line asks: a function of the schema analytics. What its arguments may be, that says. */
export type Question = {
  name: string
  function: string
  description: string
  subjects?: Setting
  settings: Setting[]
  /** How many rows it answers where --limit does not say otherwise; all, where it has no such flag. */
  limit?: number
  columns: string[]
  /** Where all of these are 0, the answer is that there was nothing. */
  counts: string[]
  chart: (rows: any[], asked: charts.Asked, canvas: charts.Canvas) => string[]
  examples: string
  /** How to read the answer. */
  reading: string
  /** What to do where there is nothing at all; default, to track an event. */
  begin?: string
}

const org: Setting = { argument: 'org', flags: '--org <id>', help: 'only what an organization did' }
const app: Setting = { argument: 'app', flags: '--app <id>', help: 'only what happened in an app' }
const since: Setting = {
  argument: 'since', flags: '--since <time>', parse: periodAgo,
  help: 'from then on: 12h, 30d (with the whole of that day, in UTC), or ISO 8601' }
const until: Setting = {
  argument: 'until', flags: '--until <time>', parse: periodAgo, help: 'before then: 12h, 7d (when that day began), or ISO 8601' }
const tags: Setting = {
  argument: 'tags', flags: '--tag <name=value>', parse: property,
  help: 'only events with this tag; may be repeated, name:=json for another type' }
const filters = [org, app, since, until, tags]

const by: Setting = { argument: 'by', flags: '--by <whom>', help: 'whom to count: actor or org (default: actor)' }
const gap: Setting = {
  argument: 'gap', flags: '--gap <time>', help: 'the longest pause within one (default: 30m)', parse: interval }

function period(standard: string, choices: string): Setting {
  return { argument: 'period', flags: '--period <period>', help: `${choices}, in UTC (default: ${standard})` }
}

function oneEvent(what: string): Setting {
  return { argument: 'event', flags: '--event <name>', help: what }
}

export const questions: Question[] = [
  {
    name: 'funnel',
    function: 'funnel',
    description: 'how many take one step after another, and how long it takes',
    subjects: { argument: 'steps', flags: '<events...>', help: 'the steps: names of events, in order' },
    settings: [
      { argument: 'within', flags: '--within <time>', help: 'how long all of it may take (default: 7d)', parse: interval },
      by,
      { argument: 'breakdown', flags: '--breakdown <tag>', help: 'a funnel for each value of a tag' },
      ...filters,
    ],
    columns: ['breakdown', 'step', 'event', 'subjects', 'conversion', 'step_conversion', 'median_seconds'],
    counts: ['subjects'],
    chart: charts.funnel,
    examples: `actorscope funnel 'CLI Command Invoked' 'Build Requested' 'Build Succeeded'
actorscope funnel 'Build Requested' 'Build Succeeded' --within 2h --by org --breakdown platform --since 30d`,
    reading: `Each step is taken strictly after the one before. "of all" is the share of those who took the first step, "of step"
of those who took the one before; "median" is the time from that one.`,
  },
  {
    name: 'retention',
    function: 'retention',
    description: 'how many come back, by when they first came',
    subjects: { argument: 'first_event', flags: '<event>', help: 'what makes somebody one of a cohort' },
    settings: [
      { argument: 'return_event', flags: '--return <event>', help: 'what counts as coming back (default: the same)' },
      period('week', 'day, week or month'), by,
      { argument: 'periods', flags: '--periods <n>', help: 'how many to look at (default: 12)', parse: wholeNumber(0, 1000) },
      ...filters,
    ],
    columns: ['cohort', 'size', 'period', 'subjects', 'share'],
    counts: ['size'],
    chart: charts.retention,
    examples: `actorscope retention 'CLI Command Invoked'
actorscope retention 'Build Requested' --return 'Build Succeeded' --period month --by org --since 2026-01-01`,
    reading: `A line for each cohort: who did it first in that week. Column 0 is that week itself, column 1 the one after.`,
  },
  {
    name: 'active',
    function: 'active',
    description: 'how many are active, and how many of them are new, returning or back again',
    settings: [by, period('day', 'day, week or month'), oneEvent('who did this counts (default: anything)'), ...filters],
    columns: ['period', 'active', 'new', 'returning', 'resurrected'],
    counts: ['active'],
    chart: charts.active,
    examples: `actorscope active --since 30d
actorscope active --by org --period week --event 'Build Succeeded' --since 2026-01-01`,
    reading: `New were never seen before; returning were active in the period before too; resurrected are the others.`,
  },
  {
    name: 'builds',
    function: 'build_health',
    description: 'how builds go: success, time to run and to wait, failures, flakiness',
    settings: [
      period('week', 'day, week or month'),
      { argument: 'by', flags: '--by <what>', help: 'a line for each app, org, platform, build_mode or actor' },
      ...filters,
    ],
    columns: [
      'period', 'by_value', 'builds', 'succeeded', 'failed', 'success_rate', 'p50_run_seconds', 'p95_run_seconds',
      'p50_queue_seconds', 'p95_queue_seconds', 'failure_categories', 'median_seconds_to_green', 'flakiness',
    ],
    counts: ['builds'],
    chart: charts.builds,
    examples: `actorscope builds --since 90d
actorscope builds --period day --by platform --app com.acme.app`,
    reading: `Builds that have ended, by when. "run" and "queue" are medians, each with its 95th percentile; "to fix" is the median
time from a first failure to the next success; "flaky" is the share of failures that succeeded when tried again.`,
    begin: 'No build that you may see has ended: actorscope build request asks for one.',
  },
  {
    name: 'surfaces',
    function: 'surfaces',
    description: 'who is seen on dashboard, CLI and builder, and on which of them together',
    settings: filters,
    columns: ['surfaces', 'actors', 'actors_at_least', 'orgs', 'orgs_at_least'],
    counts: ['actors_at_least', 'orgs_at_least'],
    chart: charts.surfaces,
    examples: `actorscope surfaces --since 30d
actorscope surfaces --org a0000000-0000-4000-8000-000000000001`,
    reading: `A line for each combination: "actors" were seen on exactly these, "or more" on these and maybe others.`,
  },
  {
    name: 'paths',
    function: 'paths',
    description: 'what people do after an event',
    subjects: { argument: 'from_event', flags: '<event>', help: 'where the paths begin' },
    settings: [
      { argument: 'depth', flags: '--depth <n>', help: 'how many steps to follow (default: 3)', parse: wholeNumber(0, 1000) },
      gap, ...filters,
    ],
    columns: ['step', 'source', 'target', 'paths', 'actors', 'median_seconds'],
    counts: ['paths'],
    chart: charts.paths,
    examples: `actorscope paths 'CLI Command Invoked'
actorscope paths 'Build Failed' --depth 5 --gap 1h --since 30d`,
    reading: `Of each step the ten ways that most paths took; --json and --csv have all.`,
  },
  {
    name: 'sessions',
    function: 'sessions',
    description: 'what people did in one go, the newest first',
    settings: [gap, ...filters],
    limit: 100,
    columns: ['actor_id', 'started_at', 'ended_at', 'seconds', 'events', 'first_event', 'last_event', 'surfaces', 'orgs'],
    counts: ['events'],
    chart: charts.sessions,
    examples: `actorscope sessions --since 1d
actorscope sessions --gap 10m --app com.acme.app --limit 1000 --csv > sessions.csv`,
    reading: `A session is a run of a person's events with no pause longer than --gap.`,
  },
  {
    name: 'activity',
    function: 'activity',
    description: 'how much happens',
    settings: [period('day', 'hour, day, week or month'), oneEvent('only events of this name (default: all)'), ...filters],
    columns: ['period', 'events', 'actors', 'orgs'],
    counts: ['events'],
    chart: charts.activity,
    examples: `actorscope activity --since 30d
actorscope activity --period hour --event 'Build Requested' --since 1d`,
    reading: `Above, all of it at a glance; where there are more periods than room, a mark shows the highest of its neighbours.`,
  },
]
