// The choice of how the mixed picture is divided. It is one picture for all who receive it, so whoever chooses last decides.

const KINDS = ['grid', 'speaker', 'screen'];

export class LayoutControl {
  #select;
  #people;
  #listed = '';
  #shown = 'grid';

  /** `people` is the group of options that pin somebody; `ask({kind, pinned})` sends a wish. */
  constructor(select, people, ask) {
    this.#select = select;
    this.#people = people;
    select.addEventListener('change', () => {
      const [kind, pinned] = select.value.split(':');
      ask(pinned ? { kind, pinned } : { kind });
      // What is shown is what the server says, also when it refuses.
      select.value = this.#shown;
    });
  }

  /** The room's people, as in `room_peers`. */
  setPeople(list) {
    const listed = JSON.stringify(list.map(({ client_id, name }) => [client_id, name]));
    if (listed === this.#listed) return;
    this.#listed = listed;
    this.#people.replaceChildren(...list.map(({ client_id, name }) => new Option(name, `pinned:${client_id}`)));
    this.#select.value = this.#shown;
  }

  /** The server's `layout` message. */
  show({ kind, pinned }) {
    if (kind === 'pinned') this.#shown = `pinned:${pinned}`;
    else this.#shown = KINDS.includes(kind) ? kind : 'grid';
    this.#select.value = this.#shown;
  }
}
