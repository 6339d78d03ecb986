import { spelledOut } from './terminal.ts'

/** A call of a function that answers rows, as SQL: what --sql prints, and psql takes. `limit` rows at most. */
export function toStatement(name: string, args: Record<string, unknown>, limit?: number): string {
  const said = Object.entries(args).map(([argument, value]) => `  ${argument} => ${toLiteral(value)}`)
  const call = `select *\nfrom   ${name}(${said.length > 0 ? `\n${said.join(',\n')}\n` : ''})`
  return limit === undefined ? call : `${call}\nlimit  ${limit}`
}

// Text has no type here: the function's argument gives it one.
function toLiteral(value: unknown): string {
  if (typeof value === 'number') return String(value)
  if (value instanceof Date) return quote(value.toISOString())
  if (Array.isArray(value)) return `array[${value.map(toLiteral).join(', ')}]`
  return quote(typeof value === 'string' ? value : JSON.stringify(value))
}

// Backslashes mean the same in E'' whatever standard_conforming_strings says; and what cannot be seen is spelled out.
function quote(text: string): string {
  const quoted = spelledOut(text.replaceAll('\'', '\'\'').replaceAll('\\', '\\\\'))
  return quoted.includes('\\') ? `E'${quoted}'` : `'${quoted}'`
}
