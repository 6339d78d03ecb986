import type { ComponentChildren } from 'preact'
import { useId, useState } from 'preact/hooks'
import { asSql, type Question } from './questions.ts'
import { Copyable } from './states.tsx'

const views = ['Chart', 'Table', 'SQL'] as const

/** Something to see, what it says in words, the same as a table, and the question in SQL that it answers. */
export function Figure({ title, summary, chart, table, question, controls }: {
  title: string
  summary?: ComponentChildren
  chart: ComponentChildren
  /** Undefined, where the chart is a table already. */
  table?: ComponentChildren
  question: Question<any>
  controls?: ComponentChildren
}) {
  const id = useId()
  const [view, setView] = useState<typeof views[number]>('Chart')
  return (
    <section class="card" aria-labelledby={id}>
      <div class="card-head">
        <h2 id={id}>{title}</h2>
        <div class="switch" role="group" aria-label={`Show ${title} as`}>
          {views.filter((name) => name !== 'Table' || table).map((name) => (
            <button key={name} type="button" aria-pressed={view === name} onClick={() => setView(name)}>{name === 'Chart' && !table ? 'Table' : name}</button>
          ))}
        </div>
      </div>
      {summary && <p class="summary">{summary}</p>}
      {view === 'Chart' && controls}
      {view === 'Chart' && chart}
      {view === 'Table' && table}
      {view === 'SQL' && <Copyable text={asSql(question)} />}
    </section>
  )
}

/** A column of a table: its head, and what it shows of a row. */
export type Column<Row> = { head: string, cell(row: Row): ComponentChildren, isNumber?: boolean, key?: string }

/** A table that scrolls by itself where the page is narrow. The first column names the row. */
export function Table<Row>({ caption, columns, rows }: { caption: string, columns: Column<Row>[], rows: Row[] }) {
  const [first, ...others] = columns
  return (
    <div class="scroller" tabIndex={0} role="group" aria-label={caption}>
      <table>
        <caption class="visually-hidden">{caption}</caption>
        <thead>
          <tr>{columns.map(({ head, isNumber }) => <th key={head} scope="col" class={isNumber ? 'number' : undefined}>{head}</th>)}</tr>
        </thead>
        <tbody>
          {rows.map((row, index) => (
            <tr key={index}>
              <th scope="row">{first?.cell(row)}</th>
              {others.map(({ head, cell, isNumber }) => <td key={head} class={isNumber ? 'number' : undefined}>{cell(row)}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

/** One of a few, chosen by a press: a group of buttons. */
export function Choice<Value extends string>({ label, value, options, onChoose }: {
  label: string, value: Value, options: Record<Value, string>, onChoose(value: Value): void
}) {
  return (
    <div class="choice">
      <span class="label" aria-hidden="true">{label}</span>
      <div class="switch" role="group" aria-label={label}>
        {(Object.entries(options) as [Value, string][]).map(([name, text]) => (
          <button key={name} type="button" aria-pressed={value === name} onClick={() => onChoose(name)}>{text}</button>
        ))}
      </div>
    </div>
  )
}

/** One of many. */
export function Select({ label, value, options, onChoose, isWide }: {
  label: string, value: string, options: Record<string, string>, onChoose(value: string): void, isWide?: boolean
}) {
  return (
    <label class={isWide ? 'field wide' : 'field'}>
      <span class="label">{label}</span>
      <select value={value} onChange={({ currentTarget }) => onChoose(currentTarget.value)}>
        {Object.entries(options).map(([name, text]) => <option key={name} value={name}>{text}</option>)}
      </select>
    </label>
  )
}

/** What the colors of a chart mean. */
export function Legend({ items }: { items: [color: string, name: string][] }) {
  return (
    <ul class="legend">
      {items.map(([color, name]) => <li key={name}><span class="swatch" style={{ background: color }} />{name}</li>)}
    </ul>
  )
}
