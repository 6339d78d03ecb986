import { inspect } from 'node:util'
import type { SupabaseClient } from '@supabase/supabase-js'
import colors from 'picocolors'

/** A call of supabase-js as data, so that what is shown is what is done. */
export type Call =
  | { rpc: string, args: Record<string, unknown> }
  | { insertInto: string, row: Record<string, unknown> }
  | { update: string, id: unknown, set: Record<string, unknown> }

/** What supabase-js answers. */
export type Answer = {
  status: number
  data: any
  error: { code: string, message: string, details: string | null, hint: string | null } | null
}

/** A value that is shown by a name, and sent as it is. */
export class Named {
  constructor(private readonly name: string, private readonly value: unknown) {}
  toJSON(): unknown { return this.value }
  toString(): string { return String(this.value) }
  [inspect.custom](): string { return this.name }
}

/** Where the story is told: shows calls as code, makes them, shows the answers, and keeps count of promises. */
export class Stage {
  /** How many promises were stated, and how many of them did not hold. */
  readonly promises = { stated: 0, broken: 0 }
  private scenes = 0
  private amongPromises = false

  constructor(private readonly print: (text: string) => void) {}

  /** Opens a scene. What goes wrong in it is shown, and ends only the scene. */
  async scene(title: string, play: () => Promise<void>): Promise<void> {
    this.print(`\n${colors.bold(`${++this.scenes}  ${title}`)}`)
    await play().catch((error: unknown) => this.promise(false, error instanceof Error ? error.message : String(error)))
    this.amongPromises = false
  }

  /** Shows a call, makes it, and returns the answer. */
  async call(speaker: SupabaseClient, who: string, call: Call): Promise<Answer> {
    this.print('')
    this.say(`${colors.dim(who.replace(/^/gm, '// '))}\n${colors.cyan(codeOf(call))}`)
    return make(speaker, call)
  }

  /** Shows the answer to a call: the data, or the error with its way out. */
  show({ status, data, error }: Answer): void {
    this.print('')
    if (!error) return this.say(literal(data))
    const lines = [`${status} ${error.code} ${error.message}`]
    if (error.details) lines.push(`details  ${error.details}`)
    if (error.hint) lines.push(`hint     ${error.hint}`)
    this.say(colors.yellow(lines.join('\n')))
  }

  /** Shows rows in columns. */
  table(headings: string[], rows: string[][]): void {
    const widths = headings.map((heading, i) => Math.max(heading.length, ...rows.map((row) => row[i]?.length ?? 0)))
    const line = (cells: string[]) => cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ').trimEnd()
    this.print('')
    this.say([colors.dim(line(headings)), ...rows.map(line)].join('\n'))
  }

  /** Shows a command of the shell, and what it prints. */
  output(command: string, lines: string[]): void {
    this.print('')
    this.say([colors.cyan(command), ...lines].join('\n'))
  }

  /** States what must now be true, and whether it is. */
  promise(holds: boolean, sentence: string): void {
    if (!this.amongPromises) this.print('')
    this.amongPromises = true
    this.promises.stated++
    if (!holds) this.promises.broken++
    this.say(holds ? `${colors.green('✓')} ${sentence}` : colors.red(`✗ ${sentence}`))
  }

  private say(text: string): void {
    this.print(text.replace(/^(?=.)/gm, '   '))
  }
}

function codeOf(call: Call): string {
  if ('rpc' in call) return `await supabase.rpc('${call.rpc}', ${literal(call.args)})`
  if ('insertInto' in call) return `await supabase.from('${call.insertInto}').insert(${literal(call.row)})`
  return `await supabase.from('${call.update}').update(${literal(call.set)}).eq('id', ${literal(call.id)})`
}

async function make(speaker: SupabaseClient, call: Call): Promise<Answer> {
  if ('rpc' in call) return speaker.rpc(call.rpc, call.args)
  if ('insertInto' in call) return speaker.from(call.insertInto).insert(call.row)
  return speaker.from(call.update).update(call.set).eq('id', String(call.id))
}

function literal(value: unknown): string {
  return inspect(value, { depth: null, breakLength: 84 })
}
