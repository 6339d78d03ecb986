import { Argument, Command, Option } from 'commander'
import type { Canvas } from './charts.ts'
import { openReader } from './cli-api.ts'
import { examples, wholeNumber, withApi, type ApiOptions, type Cli } from './cli-options.ts'
import { readDoor } from './cli-settings.ts'
import { questions, type Question, type Row } from './questions.ts'
import { toStatement } from './statement.ts'
import { jsonLine, spelledOut, type Terminal } from './terminal.ts'
import { TrackingError } from './tracking-error.ts'

type Options = ApiOptions & { csv?: boolean, sql?: boolean, limit?: number } & Record<string, unknown>

/** What a question is asked with: the function's arguments, by name. */
type Args = Record<string, unknown>

/** `actorscope funnel`, `retention` and so on: a command for each question. */
export const questionCommands = questions.map((question) => (cli: Cli): Command => {
  const { name, description, subjects, settings, limit } = question
  const command = new Command(name).description(description).helpGroup('Questions:')
  if (subjects) command.addArgument(new Argument(subjects.flags, subjects.help))
  const options = settings.map(({ flags, help, parse }) => {
    const option = new Option(flags, help)
    return parse ? option.argParser(parse) : option
  })
  for (const option of options) command.addOption(option)
  if (limit !== undefined) {
    command.addOption(new Option('--limit <n>', 'at most so many').argParser(wholeNumber(1, 1_000_000)).default(limit))
  }
  command
    .addOption(new Option('--csv', 'print CSV (RFC 4180)').conflicts(['json', 'sql']))
    .addOption(new Option('--sql', 'ask, and print the query instead of the answer').conflicts(['json', 'csv']))
    .addHelpText('after', `${examples(question.examples)}\n${question.reading}\n${whoAsks}`)
  return withApi(command).action(async (...given: unknown[]) => {
    const said = command.opts<Options>()
    const args: Args = {
      ...(subjects && { [subjects.argument]: given[0] }),
      ...Object.fromEntries(settings.map(({ argument }, i) => [argument, said[options[i]!.attributeName()]])),
    }
    await answer(cli, question, onlyGiven(args), said)
  })
})

const whoAsks = `
Whoever asks sees what they may read: the person, API key or service role that the environment names, over the Data
API; where it names none, the login of DATABASE_URL, at Postgres itself (an analyst's sees everything).
With --sql the question is asked all the same, so that the query is one that the database takes; psql takes it too.

Exit codes:
  0 answered, if only with nothing   1 refused or failed   2 the flags make no sense
`

const onlyGiven = (args: Args): Args => Object.fromEntries(Object.entries(args).filter(([, value]) => value !== undefined))

async function answer(cli: Cli, question: Question, args: Args, options: Options): Promise<void> {
  const { terminal } = cli
  const statement = toStatement(`analytics.${question.function}`, args, options.limit)
  const rows = await (readDoor(options, cli.environment) === 'api'
    ? askApi(cli, question, args, options) : askDatabase(cli, statement, options))
  const lines = options.sql ? [`${statement};`] : asLines(question, rows, args, options, terminal)
  for (const line of lines) await terminal.print(line)
  const isNothing = rows.every((row) => question.counts.every((column) => !row[column]))
  if (isNothing) terminal.say(nothing(question, args))
}

async function askApi(cli: Cli, question: Question, args: Args, options: Options): Promise<Row[]> {
  const api = await openReader(cli, options)
  return api.rows<Row>('analytics', question.function, args, options.limit)
}

// Postgres makes the JSON, as for the Data API: so that both doors answer the same to the letter.
async function askDatabase(cli: Cli, statement: string, options: Options): Promise<Row[]> {
  const { withDatabase } = await import('./cli-database.ts')
  return withDatabase(cli, options, (sql) => sql.begin('read only', async (tx) => {
    await tx`set local timezone = 'UTC'`
    const [row] = await tx.unsafe<{ rows: Row[] }[]>(`select coalesce(json_agg(answer), '[]') as rows\nfrom (\n${statement}\n) as answer`)
    return row!.rows
  })).catch((error: unknown) => {
    if (!(error instanceof TrackingError) || error.code !== '42501') throw error
    const hint = 'Grant this login what analysts may: grant analyst to its_name.'
    throw new TrackingError(error.code, { details: error.details, hint, cause: error })
  })
}

function asLines(question: Question, rows: Row[], args: Args, options: Options, terminal: Terminal): string[] {
  if (options.json) return rows.map(jsonLine)
  if (options.csv) return [question.columns, ...rows.map((row) => question.columns.map((column) => row[column]))]
    .map((values) => csvLine(values, terminal))
  const canvas: Canvas = { colors: terminal.colors, width: terminal.columns }
  return rows.length > 0 ? question.chart(rows, args, canvas) : []
}

// RFC 4180: lines end in CRLF. A terminal is spared what could move its cursor; a file gets the texts as they are.
function csvLine(values: unknown[], { isWatched }: Terminal): string {
  const text = (value: unknown) => (typeof value === 'object' ? JSON.stringify(value) : String(value))
  const field = (value: unknown) => {
    if (value === null || value === undefined) return ''
    const plain = isWatched ? spelledOut(text(value)) : text(value)
    return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain
  }
  return `${values.map(field).join(',')}\r`
}

/** What there is to do where the answer is that there was nothing. */
function nothing({ settings, begin = 'You may read no event yet: actorscope track Hello records one.' }: Question, args: Args): string {
  const narrowing = settings
    .filter(({ argument }) => ['org', 'app', 'since', 'until', 'tags'].includes(argument) && argument in args)
    .map(({ flags }) => flags.split(' ')[0])
  const ways = [
    narrowing.length > 0 && `Try it without ${narrowing.join(', ')}.`,
    Object.keys(args).some(isEventName) && 'Names of events are exact: actorscope tail --since 30d shows them.',
  ].filter(Boolean)
  return ['There is nothing to show.', ...ways.length > 0 ? ways : [begin]].join(' ')
}

const isEventName = (argument: string): boolean => /^(steps|event|.*_event)$/.test(argument)
